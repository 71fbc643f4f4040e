# Included by the Makefile.

.PHONY: bench
bench: ## Compare with nginx as pass-through, on this machine
	@for p in nginx wrk; do command -v $$p >/dev/null || { apt-get update -qq && apt-get install -y -qq $$p; } || exit 1; done
	cargo build --release
	python3 benches/compare/run.py --json target/bench.json

LEAVES ?= 10000000

.PHONY: bench-log
bench-log: ## Build a log of LEAVES leaves: memory, starts, lookups, proofs, verification
	cargo bench --bench log -- $(LEAVES)
