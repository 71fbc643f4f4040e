# expect arithmetic_inexact at 8:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "fee" if {
	input.action == "charge.create"
	input.request.body.fee_rate * 100 > 5
}
