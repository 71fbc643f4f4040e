# What a fresh machine with Rust needs is installed by the targets that need it.

.DEFAULT_GOAL := help
.PHONY: help test test-tools lint fuzz-check fuzz

help: ## Show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

test: test-tools ## Run every test
	cargo nextest run --lib --bins --tests
	cargo test --doc --quiet

# A missing program is installed; what is there is left alone.
APT = command -v $(1) >/dev/null || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $(2); }
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# golang.org/x/mod as Debian packages it: source, for tests/interop.rs.
GO_MOD_SOURCE := /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tile.go

test-tools: target/test-venv/.installed target/test-node/.installed
	@$(call APT,strace,strace)
	@$(call APT,curl,curl)
	@$(call APT,openssl,openssl)
	@$(call APT,go,--no-install-recommends golang-go)
	@[ -e $(GO_MOD_SOURCE) ] || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends golang-golang-x-mod-dev; }
	@$(call APT,zstd,zstd)
	@command -v cargo-nextest >/dev/null || cargo install cargo-nextest --locked --quiet

target/test-venv/.installed: tests/requirements.txt
	@mkdir -p target
	@$(call APT,python3,python3 python3-venv)
	@python3 -m venv target/test-venv || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv && python3 -m venv target/test-venv; }
	@target/test-venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

target/test-node/.installed: tests/package.json
	@mkdir -p target/test-node
	@$(call APT,npm,nodejs npm)
	@cp tests/package.json target/test-node/package.json
	@cd target/test-node && npm install --silent --no-audit --no-fund
	@touch $@

lint: ## Formatting, clippy and documentation, warnings refused
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
FUZZ_SECONDS ?= 20

fuzz-check: ## Build every fuzz target
	cd fuzz && cargo check --quiet --bins

# cargo-fuzz asks for compiler options that are not stable; the flag lets the stable compiler take them.
fuzz: ## Run every fuzz target for FUZZ_SECONDS
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked --quiet
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzz $$target, $(FUZZ_SECONDS) s"; \
		mkdir -p target/fuzz-corpus/$$target; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --dev --sanitizer none $$target target/fuzz-corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=8192 -rss_limit_mb=4096 -verbosity=0 -print_funcs=0 || exit 1; \
	done

-include bench.mk
