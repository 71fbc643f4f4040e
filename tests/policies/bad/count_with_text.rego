# expect comparison_impossible at 6:26
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "x" if count(input.context.approvals) == "2"
