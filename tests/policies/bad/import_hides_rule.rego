# expect import_shadowed at 4:1
package gateway.payments

import data.ref.limits

permit contains "may_list" if input.action == "charge.list"

limits := {"EUR": 5}

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.amount > limits.EUR
}
