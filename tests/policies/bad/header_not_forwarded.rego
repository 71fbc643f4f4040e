# expect input_unknown at 6:49
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "tenant" if input.request.headers["x-tenant"] != "a"
