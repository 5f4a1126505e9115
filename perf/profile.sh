#!/usr/bin/env bash
# Where the broker's time goes under a load: a flame graph.
#
#   perf/profile.sh [scenario] [durability]     default: qos1 fsync; scenarios: qos0 qos1 fanout idle-connect
#
# Writes target/perf-results/profile-SCENARIO-DURABILITY.svg and the functions that take most. Needs perf (package linux-perf) and
# the right to use it (kernel.perf_event_paranoid ≤ 1, or root). Instructions without it: cargo test -p postroad-benches --test instructions.
source "$(dirname "$0")/lib.sh"
scenario=${1:-qos1} durability=${2:-fsync} seconds_each=${SECONDS_EACH:-8}
command -v perf >/dev/null || fail "perf is missing: install the package linux-perf"
case $scenario in
  qos0) words=(pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 1) ;;
  qos1) words=(pairs --count 50 --qos 1 --payload 256 --rate 100000 --burst 10 --v5 --persistent) ;;
  fanout) words=(fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 8) ;;
  idle-connect) words=(connect --count 15000 --persistent --subscribe --v5) ;;
  *) fail "no scenario $scenario; there are: qos0 qos1 fanout idle-connect" ;;
esac
start_postroad 1 --set durability="$durability"
name=profile-$scenario-$durability
perf record -q -F 499 -g --call-graph dwarf,16384 -p "$broker_pid" -o "$work/perf.data" -- sleep "$seconds_each" &
others+=($!)
sleep 1
kill -0 "${others[0]}" 2>/dev/null ||
  fail "perf may not look at the process: kernel.perf_event_paranoid is $(cat /proc/sys/kernel/perf_event_paranoid)"
load "$name" --duration "$seconds_each" "${words[@]}"
wait "${others[@]}"
others=()
perf script -i "$work/perf.data" --no-inline >"$work/stacks.txt" 2>/dev/null
"$bench" flamegraph "$work/stacks.txt" --out "$results/$name.svg" --title "postroad, $scenario, $durability"
perf report -i "$work/perf.data" --no-children --no-inline -g none --percent-limit 1 --stdio 2>/dev/null | grep -v '^#' | grep -v '^$' | head -n 40 || true
echo "flame graph: $results/$name.svg"
stop_broker
