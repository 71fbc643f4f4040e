# expect input_unknown at 6:47
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "html" if input.request.headers["acept"] == "text/html"
