package gateway.exports

permit contains "rows" if {
	input.action == "export.create"
	input.request.body.rows_max <= data.ref.datasets[input.request.body.dataset].rows_max
}
