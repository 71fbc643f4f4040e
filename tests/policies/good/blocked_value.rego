package gateway.payments

permit contains "charge" if input.action == "charge.create"

deny contains "no_sepa" if {
	input.action == "charge.create"
	input.request.body.method == "sepa"
}
