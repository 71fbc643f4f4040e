# expect reference_unknown at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "blocked" if data.ref.counterpartys.blocked[input.actor.id]
