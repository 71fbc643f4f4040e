# expect head_undefined at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains {"code": "price", "price": item.price} if {
	input.action == "charge.create"
	some item in input.request.body.items
	item.quantity > 5
}
