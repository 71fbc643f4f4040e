package gateway.payments

changes if not input.action in {"charge.list", "charge.retrieve"}

permit contains "may_read" if not changes

deny contains "read_only" if changes
