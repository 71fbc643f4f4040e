package gateway.payments

permit contains "own" if {
	input.action == "charge.retrieve"
	startswith(input.request.params.charge_id, "ch_")
}
