# expect arity at 10:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

large(amount) if amount > 5

deny contains "x" if {
	input.action == "charge.create"
	large(input.request.body.amount, 5)
}
