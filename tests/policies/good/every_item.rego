package gateway.payments

permit contains "small_items" if {
	input.action == "charge.create"
	every item in input.request.body.items {
		item.quantity < 5
	}
}
