package gateway.payments

roles := {role | some role in input.actor.claims.roles}

limits := {most | some role in roles; most := data.ref.limits.EUR.per_role[role]}

permit contains {"code": "within_limit", "most": max(limits)} if {
	input.action == "charge.create"
	count(limits) > 0
	input.request.body.amount <= max(limits)
}
