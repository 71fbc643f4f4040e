# expect input_unknown at 8:34
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "old" if {
	input.action == "charge.retrieve"
	startswith(input.request.params.charge, "ch_old")
}
