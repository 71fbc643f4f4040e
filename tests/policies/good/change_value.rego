package gateway.configuration

permit contains "flag" if {
	input.action == "config.change"
	startswith(input.request.params.key, "feature.")
	is_boolean(input.request.body.value)
}
