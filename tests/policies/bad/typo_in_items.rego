# expect member_unknown at 9:7
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "many" if {
	input.action == "charge.create"
	some item in input.request.body.items
	item.quantty > 10
}
