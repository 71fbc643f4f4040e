# expect unused_variable at 8:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	amount := input.request.body.amount
	input.request.body.discount == 5
}
