# expect negation_unguarded at 8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

permit contains "small" if {
	input.action == "charge.create"
	not input.request.body.amount > 5
}
