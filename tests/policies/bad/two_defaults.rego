# expect default_conflict at 8:1
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

default limit := 5

default limit := 10

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.amount > limit
}
