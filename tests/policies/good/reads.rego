package gateway.payments

reads if input.action in {"charge.list", "charge.retrieve"}

permit contains "may_read" if reads
