# expect syntax at 8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	input.action ==
}
