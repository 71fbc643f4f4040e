# expect contract_shape at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

default deny := false
