package gateway.payments

permit contains "refund" if {
	input.action == "refund.create"
	input.request.body.reason in {"duplicate", "requested_by_customer"}
	startswith(input.request.body.charge, "ch_")
}

escalate contains "fraud" if {
	input.action == "refund.create"
	input.request.body.reason == "fraudulent"
}
