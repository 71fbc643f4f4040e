# expect recursion at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

a if b

b if a

deny contains "x" if a
