# expect builtin_unbounded at 8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	some n in numbers.range(1, input.request.body.amount)
	n == 13
}
