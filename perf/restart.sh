#!/usr/bin/env bash
# Restart after a kill -9 with many unacknowledged messages: time to `/ready`, and whether all of them are still there.
#
#   perf/restart.sh [--messages 1000000] [--sessions 1000]
#
# `young`: killed at once after the last acknowledgement. `old`: 40 s later, when all has left the young generation.
source "$(dirname "$0")/lib.sh"
read_sizes "$@"

offline=(offline --count "$sessions" --messages "$messages" --qos 1 --payload 256 --v5)

# Starts on the old port, and puts the seconds from there to `/ready` in $ready_seconds.
start_and_time() {
  local begin end
  begin=$(date +%s%N)
  (ulimit -n "$(ulimit -Hn)" && exec taskset -c "$broker_cpu" "$postroad" serve --data "$work/data" --set shards=1 \
    --set listen.mqtt=127.0.0.1:"$port" --set listen.http=127.0.0.1:"$http_port" >>"$work/postroad.log" 2>&1) &
  broker_pid=$!
  await is_ready 120 "$broker_pid"
  end=$(date +%s%N)
  ready_seconds=$(awk -v ns=$((end - begin)) 'BEGIN { printf "%.3f", ns / 1e9 }')
}

for repetition in $(seq "$repetitions"); do
  for kind in young old; do
    start_postroad 1
    load "restart-fill-$kind.$repetition" "${offline[@]}" --inflight 100 --burst 50 --phase fill
    [ $kind = young ] || sleep 40 # longer than log.young_age: what is measured begins after that age
    young=$(metric postroad_log_young_bytes) old=$(metric postroad_log_old_bytes)
    kill_broker
    start_and_time
    queued=$(metric postroad_queued_messages)
    resident=$(awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$broker_pid/status")
    echo "{\"ready_seconds\": $ready_seconds, \"young_bytes\": $young, \"old_bytes\": $old, \"queued\": $queued," \
      "\"resident_bytes\": $resident}" >"$results/restart-$kind.$repetition.json"
    echo "== restart-$kind.$repetition: $(cat "$results/restart-$kind.$repetition.json")"
    # The drain's exit code says whether every message came.
    load "restart-drain-$kind.$repetition" "${offline[@]}" --inflight 100 --phase drain
    stop_broker
  done
done

columns=/ready_seconds=seconds\ to\ /ready,/queued=queued,/young_bytes=young\ bytes,/old_bytes=old\ bytes
columns+=,/resident_bytes=resident\ bytes\ then
summarize "Restart with $messages unacknowledged messages of $sessions sessions" --columns "$columns" \
  "$results"/restart-{young,old}.*.json
columns=/traffic/received=received,/traffic/missing=missing,/traffic/repeated=repeated
columns+=,/traffic/received_per_second=drained/s
table --columns "$columns" "$results"/restart-drain-{young,old}.*.json
done_with_faults
