# expect with_refused at 8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

a if input.actor.id == "x"

deny contains "x" if a with input.actor.id as "x"
