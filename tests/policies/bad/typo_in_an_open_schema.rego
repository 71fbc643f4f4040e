# expect input_unknown at 8:21
package gateway.exports

permit contains "may_read" if input.action == "export.read"

deny contains "many" if {
	input.action == "export.create"
	input.request.body.row_max > 5
}
