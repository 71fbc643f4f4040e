# expect member_unknown at 6:26
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

over(body, most) if body.amunt > most

deny contains "large" if {
	input.action == "charge.create"
	over(input.request.body, 5)
}
