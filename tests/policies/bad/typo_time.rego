# expect input_unknown at 6:40
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "late" if input.time.unix_nanos > 5
