# expect optional_unguarded at 14:6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

permit contains "charge" if {
	input.action == "charge.create"
	input.request.body.amount < 5000
}

deny contains "country" if {
	input.action == "charge.create"
	country := input.request.body.shipping.country
	not country in {"DE", "FR"}
}
