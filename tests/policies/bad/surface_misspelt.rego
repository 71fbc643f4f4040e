# expect rule_unreachable at 6:22
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if input.surface == "payment"
