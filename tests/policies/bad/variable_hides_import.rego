# expect import_shadowed at 10:2
package gateway.payments

import data.ref.limits

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	limits := {"EUR": 5}
	input.request.body.amount > limits.EUR
}
