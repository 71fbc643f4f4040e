# expect syntax at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny[msg] {
	msg := "x"
}
