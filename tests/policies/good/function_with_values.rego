package gateway.payments

size(amount) := "small" if amount < 100

size(amount) := "large" if amount >= 100

permit contains {"code": "sized", "size": size(input.request.body.amount)} if input.action == "charge.create"
