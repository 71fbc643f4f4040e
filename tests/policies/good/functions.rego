package gateway.payments

within(amount, currency) if amount <= data.ref.limits[currency].escalate_above

permit contains "within" if {
	input.action == "charge.create"
	within(input.request.body.amount, input.request.body.currency)
}
