package gateway.payments

glass if {
	some approval in input.context.approvals
	approval.role == "administrator"
	contains(lower(approval.reason), "incident")
}

permit contains "break_glass" if glass
