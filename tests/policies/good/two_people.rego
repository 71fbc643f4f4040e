package gateway.payments

approvers := {approval.by | some approval in input.context.approvals; approval.by != input.actor.id}

escalate contains {"code": "two_people", "have": count(approvers)} if {
	input.action == "refund.create"
	count(approvers) < 2
}

permit contains "refund" if input.action == "refund.create"
