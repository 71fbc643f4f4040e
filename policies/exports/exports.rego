# Data exports: which dataset, how many rows, in which format, and when.
#
# Reference data: ref/datasets.json, ref/hours.json. The time is the input's, so a replay decides the same.
package gateway.exports

roles := {role | some role in input.actor.claims.roles}

dataset := data.ref.datasets[input.request.body.dataset]

rows := value if {
	value := input.request.body.rows_max
	is_number(value)
	value == floor(value)
	value > 0
}

may_export if {
	some role in dataset.roles
	role in roles
}

format_allowed if input.request.body.format in dataset.formats

in_business_hours if {
	now := [input.time.unix_ns, data.ref.hours.timezone]
	time.weekday(now) in data.ref.hours.weekdays
	[hour, _, _] := time.clock(now)
	hour >= data.ref.hours.from_hour
	hour < data.ref.hours.to_hour
}

approvers := {approval.by | some approval in input.context.approvals; approval.by != input.actor.id}

permit contains {"code": "export_allowed", "rows_max": rows} if {
	input.action == "export.create"
	may_export
	format_allowed
	rows <= dataset.rows_max
}

permit contains "may_read" if {
	input.action == "export.read"
	count(roles) > 0
}

deny contains "dataset_unknown" if {
	input.action == "export.create"
	not dataset
}

deny contains {"code": "dataset_not_for_role", "roles": dataset.roles} if {
	input.action == "export.create"
	not may_export
}

deny contains {"code": "format_not_allowed", "formats": dataset.formats} if {
	input.action == "export.create"
	not format_allowed
}

deny contains {"code": "rows_missing", "message": "rows_max must be a positive integer"} if {
	input.action == "export.create"
	not rows
}

deny contains {"code": "rows_over", "rows_max": dataset.rows_max} if {
	input.action == "export.create"
	rows > dataset.rows_max
}

escalate contains {"code": "many_rows", "above": dataset.rows_escalate_above} if {
	input.action == "export.create"
	rows > dataset.rows_escalate_above
	count(approvers) < 1
}

escalate contains "outside_business_hours" if {
	input.action == "export.create"
	not in_business_hours
	count(approvers) < 1
}
