package gateway.payments

weekend if time.weekday(input.time.unix_ns) in {"Saturday", "Sunday"}

permit contains "week" if not weekend
