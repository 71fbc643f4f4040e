package gateway.payments

permit contains "team" if {
	input.actor.claims.team == "payments"
	input.actor.method in {"jwt", "mtls"}
}

deny contains "suspended" if input.actor.claims.suspended == true
