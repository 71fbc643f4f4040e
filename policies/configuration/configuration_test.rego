package gateway.configuration_test

import data.gateway.configuration

# Thursday 2026-11-19 at 10:00, 08:59:59 and 16:00 UTC.
open := 1795082400000000000

before := 1795078799000000000

after := 1795104000000000000

ask(key, roles, now, approvals) := {
	"surface": "configuration",
	"action": "config.change",
	"actor": {"id": "agent-7", "method": "mtls", "claims": {"roles": roles}},
	"request": {"method": "PUT", "params": {"key": key}, "body": {"value": "on"}},
	"context": {"approvals": approvals},
	"time": {"unix_ns": now},
}

second := [{"by": "lea", "at": "2026-11-19T09:58:00Z"}]

test_two_people_in_the_window_may_change if {
	permit := configuration.permit with input as ask("feature.x", ["operator"], open, second)
	count(permit) == 1
	deny := configuration.deny with input as ask("feature.x", ["operator"], open, second)
	count(deny) == 0
	escalate := configuration.escalate with input as ask("feature.x", ["operator"], open, second)
	count(escalate) == 0
}

test_one_person_is_not_two if {
	every approvals in [[], [{"by": "agent-7"}]] {
		escalate := configuration.escalate with input as ask("feature.x", ["operator"], open, approvals)
		count(escalate) == 1
		permit := configuration.permit with input as ask("feature.x", ["operator"], open, approvals)
		count(permit) == 0
	}
}

test_the_window_has_two_ends if {
	every moment in [before, after] {
		deny := configuration.deny with input as ask("feature.x", ["operator"], moment, second)
		{code | some reason in deny; code := reason.code} == {"outside_window"}
	}
}

test_only_operators_change if {
	deny := configuration.deny with input as ask("feature.x", ["viewer"], open, second)
	deny == {"not_an_operator"}
}

test_a_protected_key_isolates_the_actor if {
	quarantine := configuration.quarantine with input as ask("audit.enabled", ["operator"], open, second)
	{reason.key | some reason in quarantine} == {"audit.enabled"}
}

test_reading_needs_a_role if {
	asked := {"action": "config.read", "actor": {"claims": {"roles": ["viewer"]}}}
	permit := configuration.permit with input as asked
	permit == {"may_read"}
}
