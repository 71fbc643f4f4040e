# expect reason_shape at 6:15
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains 403 if input.actor.id == "x"
