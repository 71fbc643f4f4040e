package gateway.payments

deny contains "spent" if {
	some budget in input.context.budgets
	budget.spent > 1000000
}

permit contains "charge" if input.action == "charge.create"
