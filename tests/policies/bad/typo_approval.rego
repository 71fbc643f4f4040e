# expect member_unknown at 6:24
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

approvers := {approval.name | some approval in input.context.approvals}

escalate contains "alone" if {
	input.action == "charge.create"
	count(approvers) < 1
}
