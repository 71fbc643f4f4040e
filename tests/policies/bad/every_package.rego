# expect reference_dynamic at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if data[input.actor.id].x
