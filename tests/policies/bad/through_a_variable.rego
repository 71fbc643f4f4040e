# expect comparison_impossible at 9:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	amount := input.request.body.amount
	amount == "5"
}
