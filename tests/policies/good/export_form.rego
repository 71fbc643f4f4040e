package gateway.exports

rows := to_number(input.request.body.rows) if regex.match(`^[0-9]{1,6}$`, input.request.body.rows)

permit contains "legacy" if {
	input.action == "export.legacy"
	rows < 1000
}
