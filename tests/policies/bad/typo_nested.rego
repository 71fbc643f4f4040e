# expect input_unknown at 8:30
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "far" if {
	input.action == "charge.create"
	input.request.body.shipping.contry != "DE"
}
