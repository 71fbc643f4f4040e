# expect member_unknown at 9:8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

permit contains "small_items" if {
	input.action == "charge.create"
	every item in input.request.body.items {
		item.quantit < 5
	}
}
