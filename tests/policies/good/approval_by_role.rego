package gateway.payments

operators := [approval | some approval in input.context.approvals; approval.role == "operator"]

permit contains "operator_agreed" if {
	input.action == "charge.create"
	count(operators) > 0
}
