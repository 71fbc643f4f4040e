# expect optional_unguarded at 15:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

permit contains "charge" if {
	input.action == "charge.create"
	input.request.body.amount < 5000
}

discount := input.request.body.discount

escalate contains "discount" if {
	input.action == "charge.create"
	discount > 50
}
