package gateway.payments

permit contains "json" if input.request.headers.accept == "application/json"
