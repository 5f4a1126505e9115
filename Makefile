# The two commands of the README: `make run` and `make test`. The rest is for those who work on Postroad.
#
#   make run     build the release binary and start the server on ./postroad-data
#   make test    every test: unit, property, golden, simulation, crash, end to end with real clients
#   make bench   criterion benches
#   make profile a flame graph of the server under a load (SCENARIO=qos0|qos1|fanout|idle-connect, DURABILITY=fsync|os|memory)
#   make soak    the simulator with many more seeds than the tests have (SEEDS=100000, FROM=1000000)
#   make kill9   the server killed again and again in the midst of every action, more often than the tests do (ROUNDS=200)
#   make lint    rustfmt, clippy, the generated files
#   make fuzz    each fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz (cargo install cargo-fuzz --locked)
#   make deny    licences, sources and banned crates; needs cargo-deny (cargo install cargo-deny --locked)
#   make clean   remove build outputs and downloaded clients

SHELL := /bin/bash
CARGO ?= cargo
DATA ?= postroad-data
FUZZ_SECONDS ?= 60
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: run build test bench soak kill9 profile lint fuzz deny clean toolchain

run: build
	exec $(TARGET)/release/postroad serve --data $(DATA)

build: toolchain
	$(CARGO) build --release -p postroad

toolchain:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install a Rust toolchain (rustup) first"; exit 1; }
	@command -v cc >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq gcc libc6-dev; \
	  else echo "a C compiler is missing: install the packages gcc and libc6-dev"; exit 1; fi; }

# The test profile is built once; the end-to-end tests run the release binary, as users do;
# those that plant faults run the test build, which has fault points.
test: toolchain
	$(MAKE) build
	tests/e2e/setup.sh
	POSTROAD_BIN="$(abspath $(TARGET))/release/postroad" $(CARGO) test --workspace --no-fail-fast

bench: toolchain
	$(CARGO) bench -p postroad-benches --benches -- --warm-up-time 0.5 --measurement-time 2 --nresamples 20000

SEEDS ?= 100000
FROM ?= 1000000
SOAK = $(TARGET)/release/examples/soak $(FROM) $$(($(FROM) + $(SEEDS) / $(1)))
soak: toolchain
	$(CARGO) build --release -p postroad-sim --example soak
	$(call SOAK,2) 3 1
	$(call SOAK,8) 1 1
	$(call SOAK,8) 2 100
	$(call SOAK,8) 3 8
	$(call SOAK,8) 3 1 6

# The rounds of the tests that kill the server under actions, groups and letters. POSTROAD_SEED=… runs one again.
ROUNDS ?= 200
kill9: toolchain
	$(MAKE) build
	POSTROAD_BIN="$(abspath $(TARGET))/release/postroad" POSTROAD_ROUNDS=$(ROUNDS) $(CARGO) test -p postroad-e2e --no-fail-fast \
	  --test kill9_actions --test groups --test letters kill -- --nocapture

SCENARIO ?= qos1
DURABILITY ?= fsync
profile: build
	$(CARGO) build --release -p postroad-perf
	perf/profile.sh $(SCENARIO) $(DURABILITY)

lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# One after the other, so that a finding stops the run. The toolchain is a stable one: RUSTC_BOOTSTRAP lets cargo-fuzz use
# the instrumentation, and there is no address sanitizer, since the code under test has no unsafe (tests/fuzz/README.md).
fuzz: toolchain
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked"; exit 1; }
	tests/fuzz/run.sh $(FUZZ_SECONDS)

# Not `advisories`: their database is a git repository, which a build machine without access to it can't fetch. Where it can
# be: cargo deny check advisories
deny: toolchain
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install cargo-deny --locked"; exit 1; }
	cargo deny check licenses bans sources

clean:
	$(CARGO) clean
