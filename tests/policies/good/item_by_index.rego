package gateway.payments

permit contains "first" if {
	input.action == "charge.create"
	input.request.body.items[0].quantity == 1
}
