# expect input_undeclared at 8:21
package gateway.exports

permit contains "may_read" if input.action == "export.read"

deny contains "many" if {
	input.action == "export.create"
	input.request.body.compression == "none"
}
