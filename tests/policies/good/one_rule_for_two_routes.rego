package gateway.payments

permit contains "small" if input.request.body.amount < 100

deny contains "large" if input.request.body.amount > 5000
