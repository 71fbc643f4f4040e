# expect input_unknown at 10:7
package gateway.payments

import input.request.body

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	body.amont > 5
}
