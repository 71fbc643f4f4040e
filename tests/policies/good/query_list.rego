package gateway.payments

permit contains "no_expansion" if {
	input.action == "charge.list"
	count(object.get(input.request.query, "expand", [])) == 0
}

deny contains "expands" if {
	input.action == "charge.list"
	"data.customer" in input.request.query.expand
}
