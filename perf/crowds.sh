#!/usr/bin/env bash
# Crowds: memory of idle sessions (beside Mosquitto), a crowd that connects at once, and the same clients coming back
# after a kill -9 and a restart.
#
#   perf/crowds.sh [--count 15000]        of the crowds; memory is taken over 15,000
source "$(dirname "$0")/lib.sh"
count=15000
[ "${1:-}" != --count ] || count=$2

# The generator holds its crowd until it is ended; its report is written before that.
report_is_there() {
  figure "$results/$held.json" connections accepted >/dev/null
}

for repetition in $(seq "$repetitions"); do
  start_postroad 1
  load "crowd-clean.$repetition" connect --count "$count"
  stop_broker

  start_postroad 1
  held=crowd-persistent.$repetition
  crowd=(connect --count "$count" --persistent --subscribe --v5)
  echo "== $held"
  rm -f "$results/$held.json"
  taskset -c "$bench_cpu" "$bench" "${crowd[@]}" --hold 3600 --port "$port" --broker-pid "$broker_pid" \
    --json "$results/$held.json" &
  holder=$!
  others=("$holder")
  await report_is_there 120 "$holder"
  kill_broker # with all of them connected
  kill "$holder"
  wait "$holder" 2>/dev/null || true
  others=()
  start_postroad 1
  load "crowd-back.$repetition" "${crowd[@]}"
  back=$(figure "$results/crowd-back.$repetition.json" connections session_present)
  if [ "$(figure "$results/$held.json" connections accepted)" -ne "$count" ] || [ "$back" -ne "$count" ]; then
    faults=$((faults + 1)) && echo "of $count sessions $back were there after the restart" >&2
  fi
  stop_broker
done

columns=/connections/seconds_to_last=last\ CONNACK\ after\ s,/connections/accepted=accepted
columns+=,/connections/session_present=session\ present,/connections/connack/p99_us=CONNACK\ p99\ µs
columns+=,/broker/cpu_us_per_connection=broker\ CPU\ µs\ per\ connection
summarize "Crowds of $count" --columns "$columns" "$results"/crowd-{clean,persistent,back}.*.json
# Memory; a run of its own, since a process seldom gives back what connecting took.
SECONDS_EACH=0 perf/side-by-side.sh idle-15000 || faults=$((faults + 1))
done_with_faults
