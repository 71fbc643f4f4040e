# expect action_unknown at 6:56
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if input.action in {"charge.create", "refund.creat"}
