package gateway.configuration

permit contains "explained" if {
	input.action == "config.change"
	count(input.request.body.comment) > 10
}
