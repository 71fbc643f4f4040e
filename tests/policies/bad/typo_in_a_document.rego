# expect data_unknown at 8:50
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	input.request.body.amount > data.ref.limits.EUR.escalate_abov
}
