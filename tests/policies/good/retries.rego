package gateway.payments

deny contains "too_often" if input.context.attempt > 3

permit contains "list" if input.action == "charge.list"
