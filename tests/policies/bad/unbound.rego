# expect name_unbound at 7
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	some n
	not n > 3
}
