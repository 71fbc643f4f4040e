package gateway.exports

forbidden := {"email", "iban"}

permit contains "columns" if {
	input.action == "export.create"
	columns := {column | some column in input.request.body.columns}
	count(columns) > 0
	count(columns & forbidden) == 0
}
