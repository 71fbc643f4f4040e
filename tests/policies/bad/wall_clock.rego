# expect builtin_refused at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "late" if time.now_ns() > 5
