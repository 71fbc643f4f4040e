# expect data_unknown|member_unknown at 9:34
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	row := data.ref.limits[input.request.body.currency]
	input.request.body.amount > row.escalate_over
}
