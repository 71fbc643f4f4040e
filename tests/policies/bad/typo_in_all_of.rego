# expect input_unknown at 8:21
package gateway.configuration

permit contains "may_read" if input.action == "config.read"

deny contains "comment" if {
	input.action == "config.change"
	input.request.body.coment == "x"
}
