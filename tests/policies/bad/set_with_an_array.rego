# expect argument_type at 8:16
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	roles := {role | some role in input.actor.claims.roles}
	count(roles & ["owner"]) == 0
}
