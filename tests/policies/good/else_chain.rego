package gateway.payments

tier := "high" if {
	input.request.body.amount > 10000
} else := "middle" if {
	input.request.body.amount > 1000
} else := "low"

permit contains {"code": "tier", "tier": tier} if {
	input.action == "charge.create"
	tier != "high"
}
