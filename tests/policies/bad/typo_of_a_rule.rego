# expect reference_unknown|does_not_compile at 8
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "large" if {
	input.action == "charge.create"
	data.gateway.payments.larg
}
