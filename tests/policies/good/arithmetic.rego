package gateway.payments

fee(amount) := ((amount * 29) / 1000) + 30

permit contains "fee" if {
	input.action == "charge.create"
	fee(input.request.body.amount) < 500
}
