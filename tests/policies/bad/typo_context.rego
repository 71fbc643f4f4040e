# expect input_unknown at 6:50
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "alone" if count(input.context.aprovals) < 1
