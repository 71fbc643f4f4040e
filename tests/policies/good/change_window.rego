package gateway.configuration

window := data.ref.windows.days[time.weekday([input.time.unix_ns, data.ref.windows.timezone])]

in_window if {
	[hour, _, _] := time.clock([input.time.unix_ns, data.ref.windows.timezone])
	hour >= window.from_hour
	hour < window.to_hour
}

permit contains "change" if {
	input.action == "config.change"
	in_window
}
