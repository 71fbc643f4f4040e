# expect builtin_unknown at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if crypto.sha256(input.actor.id) == "x"
