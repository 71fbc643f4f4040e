package gateway.payments

office_hours if {
	[hour, _, _] := time.clock([input.time.unix_ns, "Europe/Berlin"])
	hour >= 8
	hour < 18
}

permit contains "in_hours" if office_hours

escalate contains "out_of_hours" if not office_hours
