package gateway.exports_test

import data.gateway.exports

# Friday 2026-11-20, 10:00 and 22:00 in Berlin.
morning := 1795165200000000000

night := 1795208400000000000

ask(roles, body, now, approvals) := {
	"surface": "exports",
	"action": "export.create",
	"actor": {"id": "agent-7", "method": "jwt", "claims": {"roles": roles}},
	"request": {"method": "POST", "path": "/exports", "body": body},
	"context": {"approvals": approvals},
	"time": {"unix_ns": now},
}

orders(rows) := {"dataset": "orders", "rows_max": rows, "format": "csv"}

test_an_ordinary_export_is_permitted if {
	asked := ask(["analyst"], orders(500), morning, [])
	permit := exports.permit with input as asked
	codes_of_objects(permit) == {"export_allowed"}
	deny := exports.deny with input as asked
	count(deny) == 0
	escalate := exports.escalate with input as asked
	count(escalate) == 0
}

codes_of_objects(set) := {element.code | some element in set}

test_another_dataset_needs_another_role if {
	body := {"dataset": "payouts", "rows_max": 5, "format": "csv"}
	deny := exports.deny with input as ask(["analyst"], body, morning, [])
	codes_of_objects(deny) == {"dataset_not_for_role"}
}

test_an_unknown_dataset_is_denied if {
	body := {"dataset": "salaries", "rows_max": 5, "format": "csv"}
	deny := exports.deny with input as ask(["finance"], body, morning, [])
	"dataset_unknown" in deny
}

test_rows_are_a_positive_integer_within_the_dataset if {
	every rows in ["5", 0, -1, 1.5, null] {
		deny := exports.deny with input as ask(["analyst"], orders(rows), morning, [])
		codes_of_objects(deny) == {"rows_missing"}
	}
	over := exports.deny with input as ask(["analyst"], orders(100001), morning, [])
	codes_of_objects(over) == {"rows_over"}
}

test_a_format_must_be_listed if {
	body := {"dataset": "orders", "rows_max": 5, "format": "xlsx"}
	deny := exports.deny with input as ask(["analyst"], body, morning, [])
	codes_of_objects(deny) == {"format_not_allowed"}
}

test_many_rows_wait_for_somebody_else if {
	escalate := exports.escalate with input as ask(["analyst"], orders(10001), morning, [])
	codes_of_objects(escalate) == {"many_rows"}
	approved := exports.escalate with input as ask(["analyst"], orders(10001), morning, [{"by": "lea"}])
	count(approved) == 0
}

test_outside_business_hours_somebody_else_must_approve if {
	escalate := exports.escalate with input as ask(["analyst"], orders(5), night, [])
	escalate == {"outside_business_hours"}
}
