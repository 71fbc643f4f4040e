# expect comparison_impossible at 8:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "page" if {
	input.action == "charge.list"
	input.request.query.limit > 100
}
