package gateway.payments

page_size := to_number(input.request.query.limit) if regex.match(`^[0-9]{1,3}$`, input.request.query.limit)

permit contains "page" if {
	input.action == "charge.list"
	page_size <= 100
}
