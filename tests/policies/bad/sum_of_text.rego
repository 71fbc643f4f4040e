# expect argument_type at 8:30
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.amount + input.request.body.currency > 5
}
