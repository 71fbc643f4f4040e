# expect input_unknown at 8:33
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "held" if {
	input.action == "charge.create"
	object.get(input.request.body, "captur", true) == false
}
