package gateway.payments

permit contains "charge" if input.action == "charge.create"

deny contains "discount" if {
	input.action == "charge.create"
	object.get(input.request.body, "discount", 100) > 50
}
