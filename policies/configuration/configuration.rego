# Configuration changes: windows, two people, and keys that no agent touches.
#
# Reference data: ref/windows.json, ref/protected.json. A change is PUT /config/{key}.
package gateway.configuration

roles := {role | some role in input.actor.claims.roles}

now := [input.time.unix_ns, data.ref.windows.timezone]

window := data.ref.windows.days[time.weekday(now)]

in_window if {
	[hour, _, _] := time.clock(now)
	hour >= window.from_hour
	hour < window.to_hour
}

approvers := {approval.by | some approval in input.context.approvals; approval.by != input.actor.id}

permit contains {"code": "change_in_window", "approvers": approvers} if {
	input.action == "config.change"
	"operator" in roles
	in_window
	count(approvers) >= 1
}

permit contains "may_read" if {
	input.action == "config.read"
	count(roles & {"operator", "viewer"}) > 0
}

deny contains {"code": "outside_window", "days": data.ref.windows.days} if {
	input.action == "config.change"
	not in_window
}

deny contains "not_an_operator" if {
	input.action == "config.change"
	not "operator" in roles
}

escalate contains {"code": "second_person", "message": "a change needs somebody other than who asks"} if {
	input.action == "config.change"
	count(approvers) < 1
}

quarantine contains {"code": "protected_key", "key": input.request.params.key, "why": why} if {
	input.action == "config.change"
	why := data.ref.protected.keys[input.request.params.key]
}
