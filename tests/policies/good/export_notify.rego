package gateway.exports

permit contains "quiet" if {
	input.action == "export.create"
	input.request.body.notify == null
}

permit contains "ours" if {
	input.action == "export.create"
	endswith(input.request.body.notify, "@ours.example")
}
