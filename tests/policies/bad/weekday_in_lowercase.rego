# expect comparison_impossible at 6:32
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "weekend" if time.weekday(input.time.unix_ns) in {"saturday", "sunday"}
