# expect input_unknown at 8:25
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "customer_missing" if {
	input.action == "charge.create"
	not input.request.body.costumer
}
