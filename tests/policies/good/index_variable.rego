package gateway.payments

deny contains "zero" if {
	some i
	input.request.body.items[i].quantity == 0
	i < 10
}

permit contains "charge" if input.action == "charge.create"
