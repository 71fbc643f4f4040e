# expect input_unknown at 8:21
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	input.request.body.amout > 5000
}
