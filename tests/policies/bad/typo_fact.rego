# expect input_unknown at 6:46
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "risky" if input.context.facts.risks.score > 5
