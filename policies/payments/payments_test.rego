package gateway.payments_test

import data.gateway.payments

ask(action, roles, body, approvals) := {
	"surface": "payments",
	"action": action,
	"actor": {"id": "agent-7", "method": "api_key", "claims": {"roles": roles}},
	"request": {"method": "POST", "path": "/v1/charges", "body": body},
	"context": {"approvals": approvals},
}

charge(amount) := {"amount": amount, "currency": "eur", "customer": "cus_1"}

codes(set) := {code | some element in set; code := object.get(element, "code", "")}

test_a_small_charge_is_permitted if {
	permit := payments.permit with input as ask("charge.create", ["agent"], charge(4200), [])
	codes(permit) == {"within_limit"}
	deny := payments.deny with input as ask("charge.create", ["agent"], charge(4200), [])
	count(deny) == 0
}

test_the_text_of_a_form_counts_like_a_number if {
	permit := payments.permit with input as ask("charge.create", ["agent"], charge("4200"), [])
	some reason in permit
	reason.amount == 4200
}

test_the_limit_itself_is_permitted_and_one_more_is_not if {
	at := payments.permit with input as ask("charge.create", ["agent"], charge(50000), [])
	count(at) == 1
	over := payments.permit with input as ask("charge.create", ["agent"], charge(50001), [])
	count(over) == 0
	deny := payments.deny with input as ask("charge.create", ["agent"], charge(50001), [])
	codes(deny) == {"over_limit"}
}

test_a_budget_counts_what_is_spent_and_what_is_under_way if {
	every spent, denied in {985800: 0, 985801: 1, 1000000: 1} {
		budgets := {"customer_day": {"spent": spent, "in_flight": 10000}}
		asked := object.union(ask("charge.create", ["agent"], charge(4200), []), {"context": {"approvals": [], "budgets": budgets}})
		deny := payments.deny with input as asked
		count(deny) == denied
	}
}

test_what_is_not_a_positive_integer_is_denied if {
	every amount in [0, -1, 1.5, "1e3", "0100", "-5", "", "12345678901234567", true, null, [1]] {
		deny := payments.deny with input as ask("charge.create", ["agent"], charge(amount), [])
		"amount_invalid" in codes(deny)
		permit := payments.permit with input as ask("charge.create", ["agent"], charge(amount), [])
		count(permit) == 0
	}
}

test_a_body_without_members_is_denied if {
	deny := payments.deny with input as ask("charge.create", ["agent"], {}, [])
	{"amount_invalid", "currency_unsupported", "customer_invalid"} == codes(deny)
}

test_an_unknown_currency_is_denied if {
	every currency in ["xxx", "uſd", "EUR ", "", 978, null] {
		body := object.union(charge(1), {"currency": currency})
		deny := payments.deny with input as ask("charge.create", ["agent"], body, [])
		codes(deny) == {"currency_unsupported"}
	}
}

test_a_role_without_a_limit_is_denied if {
	deny := payments.deny with input as ask("charge.create", ["auditor"], charge(1), [])
	codes(deny) == {"role_without_limit"}
}

test_a_blocked_counterparty_is_denied if {
	body := {"amount": 1, "currency": "EUR", "customer": "cus_blocked"}
	deny := payments.deny with input as ask("charge.create", ["agent"], body, [])
	codes(deny) == {"counterparty_blocked"}
}

test_a_charge_names_its_customer if {
	without := payments.deny with input as ask("charge.create", ["agent"], {"amount": 1, "currency": "EUR"}, [])
	codes(without) == {"customer_invalid"}
	every customer in ["", "CUS_BLOCKED", "cus_blocked ", 7, null, false, ["cus_1"], {"id": "cus_1"}] {
		body := object.union(charge(1), {"customer": customer})
		charged := payments.deny with input as ask("charge.create", ["agent"], body, [])
		codes(charged) == {"customer_invalid"}
		refund := object.union(body, {"charge": "ch_1"})
		refunded := payments.deny with input as ask("refund.create", ["agent"], refund, [])
		codes(refunded) == {"customer_invalid"}
	}
}

test_a_large_charge_waits_for_somebody_else if {
	alone := payments.escalate with input as ask("charge.create", ["senior"], charge(100001), [])
	codes(alone) == {"needs_approval"}
	own := [{"by": "agent-7", "at": "2026-11-20T09:00:00Z"}]
	by_itself := payments.escalate with input as ask("charge.create", ["senior"], charge(100001), own)
	codes(by_itself) == {"needs_approval"}
	other := [{"by": "lea", "at": "2026-11-20T09:00:00Z"}]
	approved := payments.escalate with input as ask("charge.create", ["senior"], charge(100001), other)
	count(approved) == 0
}

test_a_canary_isolates_the_actor if {
	body := {"amount": 1, "currency": "EUR", "customer": "cus_canary"}
	quarantine := payments.quarantine with input as ask("charge.create", ["agent"], body, [])
	codes(quarantine) == {"canary_touched"}
}

test_a_refund_names_its_charge if {
	without := payments.deny with input as ask("refund.create", ["agent"], charge(1), [])
	codes(without) == {"charge_missing"}
	named := object.union(charge(1), {"charge": "ch_1"})
	deny := payments.deny with input as ask("refund.create", ["agent"], named, [])
	count(deny) == 0
}

test_a_charge_that_is_no_text_is_no_way_around_the_canary if {
	body := {"amount": 1, "currency": "EUR", "customer": "cus_canary", "charge": 5}
	quarantine := payments.quarantine with input as ask("refund.create", ["agent"], body, [])
	codes(quarantine) == {"canary_touched"}
	deny := payments.deny with input as ask("refund.create", ["agent"], body, [])
	codes(deny) == {"charge_missing"}
}

test_reading_needs_a_role if {
	with_role := payments.permit with input as ask("charge.list", ["auditor"], {}, [])
	with_role == {"may_read"}
	without_role := payments.permit with input as ask("charge.list", [], {}, [])
	count(without_role) == 0
}

test_an_unknown_action_gets_nothing if {
	permit := payments.permit with input as ask("charge.capture", ["senior"], charge(1), [])
	count(permit) == 0
}
