# expect unused_function at 6:1
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

large(amount) if amount > 5
