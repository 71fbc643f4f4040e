# expect builtin_unbounded at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if not regex.match(`^\d+$`, input.request.path)
