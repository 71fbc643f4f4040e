package gateway.payments

permit contains "ticket" if {
	input.action == "charge.create"
	regex.match(`^T-[0-9]{1,8}$`, input.request.body.metadata.ticket)
}
