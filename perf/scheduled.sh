#!/usr/bin/env bash
# Restart after a kill -9 while many messages wait for their time: time to `/ready`, and from there until one leaves that was due
# meanwhile. What is due leaves in the order of time, so it waits until the times of all have been read.
#
#   perf/scheduled.sh [--messages 1000000]
#
# Almost all have left the young generation then, which is small.
source "$(dirname "$0")/lib.sh"
read_sizes "$@"

options=(--set durability=os --set scheduled.max=$((2 * messages)) --set log.young_bytes=16MiB --set log.segment_bytes=4MiB)

put_off() {
  "$postroad" publish --api "http://127.0.0.1:$http_port" scheduled/topic "$@"
}

# Whether as many wait as are for much later.
due_has_left() {
  [ "$(metric postroad_scheduled_messages)" -le "$messages" ]
}

seconds_since() {
  awk -v ns=$(($(date +%s%N) - $1)) 'BEGIN { printf "%.3f", ns / 1e9 }'
}

for repetition in $(seq "$repetitions"); do
  start_postroad 1 "${options[@]}"
  seq -f '%0100.0f' "$messages" | put_off --lines --deliver-after 360000 >/dev/null
  put_off --message due --deliver-after 1 >/dev/null
  waiting=$(metric postroad_scheduled_messages) old=$(metric postroad_log_old_bytes)
  kill_broker
  sleep 2 # it is due
  begin=$(date +%s%N)
  start_postroad 1 "${options[@]}"
  ready_seconds=$(seconds_since "$begin") begin=$(date +%s%N)
  await due_has_left 120 "$broker_pid"
  due_seconds=$(seconds_since "$begin")
  resident=$(awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$broker_pid/status")
  echo "{\"waiting\": $waiting, \"old_bytes\": $old, \"ready_seconds\": $ready_seconds, \"due_seconds\": $due_seconds," \
    "\"resident_bytes\": $resident}" >"$results/scheduled.$repetition.json"
  echo "== scheduled.$repetition: $(cat "$results/scheduled.$repetition.json")"
  stop_broker
done

columns=/waiting=waiting,/old_bytes=old\ bytes,/ready_seconds=seconds\ to\ /ready,/due_seconds=seconds\ until\ what\ was\ due
columns+=,/resident_bytes=resident\ bytes\ then
summarize "Restart with $messages messages that wait for their time" --columns "$columns" "$results"/scheduled.*.json
done_with_faults
