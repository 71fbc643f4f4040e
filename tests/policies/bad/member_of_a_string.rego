# expect input_unknown at 8:30
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	input.request.body.customer.id == "cus_1"
}
