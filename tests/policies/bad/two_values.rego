# expect rule_conflict at 8:1
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

limit := 5

limit := 10

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.amount > limit
}
