package gateway.payments

permit contains "charges" if startswith(input.request.path, "/v1/charges")
