#!/usr/bin/env bash
# Binaries of the server in turn under one load: what a change costs or saves. Runs that stand side by side in time compare; of
# runs minutes apart the machine's mood is the larger part.
#
#   perf/binaries.sh BEFORE AFTER… [-- SCENARIO AND OPTIONS of postroad-bench]
#
# Without a scenario: QoS 1, 50 pairs, 256 B, 100 under way for each, in memory. DURABILITY (memory) and SECONDS_EACH (2) change that.
# The last part of each binary's path is its name in the table; all are compared with the first.
source "$(dirname "$0")/lib.sh"
binaries=() load=(pairs --count 50 --qos 1 --payload 256 --inflight 100 --burst 10 --persistent)
while [ $# -gt 0 ]; do
  if [ "$1" = -- ]; then
    load=("${@:2}") && break
  fi
  [ -x "$1" ] || fail "$1 is no program"
  binaries+=("$(realpath "$1")") && shift
done
[ ${#binaries[@]} -ge 2 ] || fail "name two binaries at least; see the head of $0"

# A dash parts a name from what it is compared by.
name_of() {
  basename "$1" | tr - _
}

files=()
for repetition in $(seq "$repetitions"); do
  for postroad in "${binaries[@]}"; do
    name=binaries-$(name_of "$postroad")
    start_postroad 1 --set durability="${DURABILITY:-memory}"
    load "$name.$repetition" "${load[@]}" --duration "${SECONDS_EACH:-2}" --warmup 1
    stop_broker
    files+=("$results/$name.$repetition.json")
  done
done
columns=/broker/cpu_us_per_delivered=broker\ CPU\ µs,/traffic/received_per_second=received/s,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs
columns+=,/traffic/missing=missing
summarize "Binaries in turn: ${load[*]}" --against "$(name_of "${binaries[0]}")" --columns "$columns" "${files[@]}"
done_with_faults
