package gateway.payments

quarantine contains "canary" if data.ref.counterparties.canaries[input.request.body.customer]

permit contains "charge" if input.action == "charge.create"
