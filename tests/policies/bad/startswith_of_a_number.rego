# expect argument_type at 8:13
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	startswith(input.request.body.amount, "9")
}
