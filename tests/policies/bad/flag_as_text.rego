# expect comparison_impossible at 8:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "x" if {
	input.action == "charge.create"
	input.request.body.capture == "false"
}
