# expect arithmetic_inexact at 8:30
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "fee" if {
	input.action == "charge.create"
	input.request.body.amount * 0.029 > 30
}
