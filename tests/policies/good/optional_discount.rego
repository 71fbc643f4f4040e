package gateway.payments

permit contains "charge" if input.action == "charge.create"

deny contains "discount" if {
	input.action == "charge.create"
	input.request.body.discount > 50
}

deny contains "discount_missing" if {
	input.action == "charge.create"
	not input.request.body.discount
}
