package gateway.payments

permit contains "may_read" if input.request.method == "GET"

deny contains "writes_need_a_person" if {
	input.request.method != "GET"
	count(input.context.approvals) == 0
}
