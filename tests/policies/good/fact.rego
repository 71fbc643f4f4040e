package gateway.payments

permit contains "low_risk" if {
	input.action == "charge.create"
	input.context.facts.risk.score < 50
}
