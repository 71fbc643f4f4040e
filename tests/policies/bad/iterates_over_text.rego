# expect iteration_impossible at 8:12
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	some c in input.request.body.customer
	c == "x"
}
