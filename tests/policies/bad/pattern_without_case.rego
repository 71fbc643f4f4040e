# expect pattern_unicode at 8:2
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action == "charge.create"
	regex.match(`(?i)^cus_k`, input.request.body.customer)
}
