# expect builtin_refused at 7
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if {
	walk(input, [_, value])
	value == "secret"
}
