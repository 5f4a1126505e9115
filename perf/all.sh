#!/usr/bin/env bash
# Every measurement in turn; tables for RESULTS.md in target/perf-results/summary.md, all output beside it.
#
#   perf/all.sh
#
# It takes, with the defaults: about three hours; 2 cores that do nothing else; 4 GB of memory; 10 GB of disk under target/ (no
# tmpfs); an open file limit of 16,000 (ulimit -Hn); bash, taskset, python3, curl, mosquitto and its clients; release builds of both binaries.
# REPETITIONS, SECONDS_EACH and MINUTES make it shorter, and worth less.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
results=target/perf-results
mkdir -p "$results"
: >"$results/summary.md"
failed=()

step() {
  local log
  log=$results/$(basename "$1" .sh).log
  echo "=== $* (output in $log)"
  "$@" >"$log" 2>&1 || failed+=("$*")
}

criterion() {
  cargo bench -p postroad-benches --no-run && taskset -c "${BROKER_CPU:-0}" make bench && {
    printf '\n### Criterion\n\n'
    "${POSTROAD_BENCH:-${CARGO_TARGET_DIR:-target}/release/postroad-bench}" summarize \
      --criterion "${CARGO_TARGET_DIR:-target}/criterion"
  } >>"$results/summary.md"
}

step perf/crowds.sh
step perf/restart.sh
step perf/scheduled.sh
step perf/disturbances.sh
step perf/drain.sh
step perf/lanes.sh
step perf/backlog.sh
step perf/api.sh
step perf/grpc.sh
step perf/batch.sh
step perf/plugins.sh
step perf/counting.sh
step perf/shards.sh
step perf/fanout.sh
step perf/side-by-side.sh
step perf/limits.sh
step perf/peers.sh
step perf/compare.sh
step perf/growth.sh
step perf/durable.sh --minutes "${MINUTES:-10}" --search
step criterion
echo "tables: $results/summary.md"
[ ${#failed[@]} -eq 0 ] || { printf 'had faults or could not be run: %s\n' "${failed[@]}" && exit 1; }
