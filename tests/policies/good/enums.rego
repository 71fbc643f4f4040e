package gateway.payments

permit contains "euro" if {
	input.action == "charge.create"
	input.request.body.currency == "EUR"
}

permit contains "others" if {
	input.action == "charge.create"
	input.request.body.currency in {"USD", "JPY"}
}
