package gateway.payments

default risk := 100

risk := input.context.facts.risk.score

permit contains "low" if risk < 50

escalate contains "high" if risk >= 50
