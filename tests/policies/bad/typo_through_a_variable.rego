# expect input_unknown at 9:7
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	body := input.request.body
	body.ammount > 5
}
