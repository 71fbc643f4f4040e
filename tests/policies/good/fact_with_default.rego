package gateway.payments

permit contains "low_risk" if {
	input.action == "charge.create"
	object.get(input.context.facts.risk, "score", 100) < 50
}
