package gateway.payments

permit contains "charge" if {
	input.action == "charge.create"
	input.request.body.discount < 50
}

deny contains "discount" if {
	input.action == "charge.create"
	input.request.body.discount > 90
}
