# expect data_unknown at 8:46
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	input.request.body.amount > data.ref.limits.GBP.escalate_above
}
