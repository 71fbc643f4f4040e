package gateway.payments

permit contains "within_budget" if {
	input.action == "charge.create"
	drawn := input.context.budgets.customer_day
	drawn.spent + drawn.in_flight + input.request.body.amount <= 1000000
}
