# expect input_unknown|member_unknown at 8:30
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "many" if {
	input.action == "charge.create"
	input.request.body.items[_].qty > 10
}
