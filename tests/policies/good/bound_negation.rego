package gateway.payments

permit contains "domestic" if {
	input.action == "charge.create"
	customer := input.request.body.customer
	not startswith(customer, "cus_x")
}
