package gateway.payments

import data.ref.limits as most

permit contains "within" if {
	input.action == "charge.create"
	input.request.body.amount < most.EUR.escalate_above
}
