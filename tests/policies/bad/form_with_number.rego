# expect comparison_impossible at 8:2
package gateway.exports

permit contains "may_read" if input.action == "export.read"

deny contains "many" if {
	input.action == "export.legacy"
	input.request.body.rows > 100
}
