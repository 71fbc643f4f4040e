# expect builtin_refused at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

escalate contains "sample" if rand.intn("x", 100) < 5
