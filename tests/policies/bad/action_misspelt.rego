# expect rule_unreachable at 7:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.creat"
	input.request.body.amount > 5
}
