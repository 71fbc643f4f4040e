# expect member_unknown at 8:60
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "many" if {
	input.action == "charge.create"
	count([item | some item in input.request.body.items; item.quantitiy > 5]) > 3
}
