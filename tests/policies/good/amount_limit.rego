package gateway.payments

permit contains "within_limit" if {
	input.action == "charge.create"
	input.request.body.amount <= 5000
}

deny contains "over_limit" if {
	input.action == "charge.create"
	input.request.body.amount > 5000
}
