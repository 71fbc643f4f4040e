package gateway.payments

home if {
	input.request.body.shipping != null
	input.request.body.shipping.country == "DE"
}

permit contains "home" if {
	input.action == "charge.create"
	home
}

permit contains "nothing_is_shipped" if {
	input.action == "charge.create"
	input.request.body.shipping == null
}
