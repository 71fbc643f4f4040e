# expect comparison_impossible at 8:2
package gateway.exports

permit contains "may_read" if input.action == "export.read"

deny contains "all" if {
	input.action == "export.create"
	input.request.body.columns == "*"
}
