package gateway.payments

amount := value if {
	value := input.request.body.amount
	is_number(value)
}

amount := value if {
	text := input.request.body.amount
	is_string(text)
	regex.match(`^[1-9][0-9]{0,14}$`, text)
	value := to_number(text)
}

permit contains "small" if {
	input.action == "charge.create"
	amount < 5000
}

deny contains "amount_invalid" if {
	input.action == "charge.create"
	not amount
}
