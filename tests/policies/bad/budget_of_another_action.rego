# expect input_undeclared at 8:24
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "spent" if {
	input.action == "refund.create"
	input.context.budgets.customer_day.spent > 5
}
