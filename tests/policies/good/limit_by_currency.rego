package gateway.payments

limit := data.ref.limits[input.request.body.currency].escalate_above

permit contains "within_limit" if {
	input.action == "charge.create"
	input.request.body.amount <= limit
}

escalate contains "over" if {
	input.action == "charge.create"
	input.request.body.amount > limit
}
