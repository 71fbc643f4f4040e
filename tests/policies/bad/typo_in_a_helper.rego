# expect input_unknown at 6:29
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

large if input.request.body.amoutn > 5

deny contains "large" if {
	input.action == "charge.create"
	large
}
