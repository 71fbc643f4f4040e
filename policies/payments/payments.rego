# Charges and refunds: amounts by currency and role, counterparties, people above a threshold.
#
# Amounts are integers in the minor unit of their currency (cents). Reference data: ref/limits.json,
# ref/counterparties.json.
package gateway.payments

roles := {role | some role in input.actor.claims.roles}

spends if input.action in {"charge.create", "refund.create"}

reads if input.action in {"charge.retrieve", "charge.list"}

# A JSON body has a number, a form body has text. Nothing else is an amount.
amount := value if {
	value := input.request.body.amount
	is_number(value)
	value == floor(value)
	value > 0
}

amount := value if {
	text := input.request.body.amount
	is_string(text)
	regex.match(`^[1-9][0-9]{0,14}$`, text)
	value := to_number(text)
}

# Three ASCII letters in either case: `upper` alone would make a dollar of `uſd`.
currency := upper(text) if {
	text := input.request.body.currency
	is_string(text)
	regex.match(`^[A-Za-z]{3}$`, text)
}

customer := text if {
	text := input.request.body.customer
	is_string(text)
	regex.match(`^cus_[A-Za-z0-9_]{1,64}$`, text)
}

rules := data.ref.limits[currency]

# The highest limit of any role the actor has; undefined if none has one.
limit := max([most | some role in roles; most := rules.per_role[role]])

# People other than the actor.
approvers := {approval.by | some approval in input.context.approvals; approval.by != input.actor.id}

permit contains {"code": "within_limit", "amount": amount, "currency": currency, "limit": limit} if {
	spends
	amount <= limit
}

permit contains "may_read" if {
	reads
	count(roles & {"agent", "senior", "auditor"}) > 0
}

deny contains {"code": "amount_invalid", "message": "amount must be a positive integer in minor units"} if {
	spends
	not amount
}

deny contains {"code": "currency_unsupported", "message": "no limits are set for this currency"} if {
	spends
	not rules
}

deny contains {"code": "role_without_limit", "message": "none of the actor's roles may spend in this currency"} if {
	spends
	rules
	not limit
}

deny contains {"code": "over_limit", "message": message, "limit": limit} if {
	spends
	amount > limit
	message := sprintf("%d is over the limit of %d %s", [amount, limit, currency])
}

# Where the surface declares the budget: everything drawn today, and what is still under way, counts.
deny contains {"code": "over_budget", "message": message, "limit": most} if {
	spends
	drawn := input.context.budgets.customer_day
	most := rules.per_customer_day
	drawn.spent + drawn.in_flight + amount > most
	message := sprintf("a customer may be charged %d %s a day", [most, currency])
}

deny contains {"code": "counterparty_blocked", "case": reference} if {
	spends
	reference := data.ref.counterparties.blocked[customer]
}

# A charge without one, or with one in another spelling, would pass the lists by.
deny contains {"code": "customer_invalid", "message": "a charge names its customer: cus_..."} if {
	input.action == "charge.create"
	not customer
}

# So would a refund's, if it names one.
deny contains {"code": "customer_invalid", "message": "a customer is cus_..."} if {
	input.action == "refund.create"
	_ := input.request.body.customer
	not customer
}

deny contains {"code": "charge_missing", "message": "a refund names the charge it returns"} if {
	input.action == "refund.create"
	not names_a_charge
}

# Checked before `startswith`, whose error on a number would be no verdict at all, nor a quarantine.
names_a_charge if {
	is_string(input.request.body.charge)
	startswith(input.request.body.charge, "ch_")
}

escalate contains {"code": "needs_approval", "message": message, "approvals": count(approvers)} if {
	spends
	amount > rules.escalate_above
	amount <= limit
	count(approvers) < 1
	message := sprintf("above %d %s somebody else must approve", [rules.escalate_above, currency])
}

quarantine contains {"code": "canary_touched"} if {
	spends
	data.ref.counterparties.canaries[customer]
}
