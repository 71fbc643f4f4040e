# expect contract_misspelt at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

denny contains "x" if input.actor.id == "x"
