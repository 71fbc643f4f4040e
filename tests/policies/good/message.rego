package gateway.payments

deny contains {"code": "over", "message": message} if {
	input.action == "charge.create"
	input.request.body.amount > 5000
	message := sprintf("%d is over %d", [input.request.body.amount, 5000])
}

permit contains "charge" if input.action == "charge.create"
