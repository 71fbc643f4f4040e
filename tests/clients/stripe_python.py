"""The official Stripe library, told only where the API is and which key to use."""
import json
import sys

import stripe

base, key = sys.argv[1:3]
stripe.max_network_retries = 2
client = stripe.StripeClient(key, base_addresses={"api": base})

intent = client.v1.payment_intents.create(
    {
        "amount": 1999,
        "currency": "usd",
        "payment_method_types": ["card"],
        "metadata": {"order": "6735", "note": "a b & c"},
        "expand": ["customer"],
    },
    {"idempotency_key": "order-6735"},
)
listed = client.v1.payment_intents.list({"limit": 3, "created": {"gte": 1700000000}})
read = client.v1.payment_intents.retrieve("pi_1")
denied = None
try:
    client.v1.payment_intents.create({"amount": 5000000, "currency": "usd"})
except stripe.StripeError as error:
    denied = {"type": type(error).__name__, "status": error.http_status}
print(json.dumps({"id": intent.id, "listed": len(listed.data), "read": read.id, "denied": denied}))
