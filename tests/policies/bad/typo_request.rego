# expect input_unknown at 6:39
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "huge" if input.request.sise > 60000
