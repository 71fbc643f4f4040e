# expect argument_type at 8:8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	count(input.request.body.amount) > 5
}
