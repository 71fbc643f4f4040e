# expect rule_conflict at 8:1
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

limit := 5 if input.actor.method == "jwt"

limit := 10 if input.actor.method == "jwt"

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.amount > limit
}
