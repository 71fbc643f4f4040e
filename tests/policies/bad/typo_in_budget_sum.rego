# expect input_unknown at 8:37
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "spent" if {
	input.action == "charge.create"
	input.context.budgets.customer_day.spend > 5
}
