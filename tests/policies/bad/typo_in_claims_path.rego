# expect input_unknown at 6:34
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

permit contains "agent" if input.acter.claims.team == "payments"
