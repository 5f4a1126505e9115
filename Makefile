# The two commands of the README: `make run` and `make test`. The rest is for those who work on Postroad.
#
#   make run     build the release binary and start the server on ./postroad-data
#   make test    every test: unit, property, golden, simulation, crash, end to end with real clients
#   make bench   criterion benches
#   make lint    rustfmt, clippy, the generated files
#   make clean   remove build outputs and downloaded clients

SHELL := /bin/bash
CARGO ?= cargo
DATA ?= postroad-data
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: run build test test-rust test-e2e bench lint clean toolchain

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
	$(CARGO) bench -p postroad-benches

lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
