package gateway.payments

permit contains "small" if {
	input.action == "charge.create"
	count(object.get(input.request.body, "items", [])) < 10
}

deny contains {"code": "many", "sku": sku} if {
	input.action == "charge.create"
	some item in input.request.body.items
	item.quantity > 100
	sku := item.sku
}
