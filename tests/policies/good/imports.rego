package gateway.payments

import data.ref.limits
import input.request.body
import rego.v1

permit contains "within" if {
	input.action == "charge.create"
	body.amount < limits.EUR.escalate_above
}
