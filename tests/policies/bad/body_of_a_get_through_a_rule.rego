# expect input_unknown at 10:16
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

lists if input.action in {"charge.list"}

deny contains "large" if {
	lists
	input.request.body.limit > 100
}
