# expect input_unknown at 8:16
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.list"
	input.request.body.limit > 100
}
