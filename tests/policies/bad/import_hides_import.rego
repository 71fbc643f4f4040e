# expect import_shadowed at 5:1
package gateway.payments

import data.ref.limits
import data.ref.windows as limits

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.amount > limits.EUR.escalate_above
}
