#!/usr/bin/env bash
# Very many messages for very many clients that are away (targets: memory < 1 GiB, a restart in < 10 s, the first message < 50 ms
# after its client has begun to connect).
#
#   perf/backlog.sh [--sessions 100000] [--messages 10000000]
#
# The clients come in fleets of at most 12,500, since each needs files here and there. What waits leaves memory within log.young_age;
# then the server is killed with -9, and 20 clients of the fleets return one by one: mosquitto_sub, from its start to its first
# message, its own start included, which is shown beside.
source "$(dirname "$0")/lib.sh"
sizes=(--sessions 100000 --messages 10000000)
read_sizes "${sizes[@]}" "$@"
fleet=12500 returning=20
each=$((messages / sessions))

resident() {
  awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$broker_pid/status"
}

# Milliseconds from now to the end of a command.
milliseconds() {
  local begin=$EPOCHREALTIME
  "$@" >/dev/null
  awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.1f\n", (end - begin) * 1000 }'
}

# The first message of the client with this number in this fleet.
first_message() {
  milliseconds mosquitto_sub -h 127.0.0.1 -p "$port" -V mqttv5 -i "fleet$1-r$2" -c -q 1 -t "fleet$1/$2" -C 1 -W 10
}

for repetition in $(seq "$repetitions"); do
  start_postroad 1
  left=$sessions number=0
  while [ "$left" -gt 0 ]; do
    count=$((left < fleet ? left : fleet))
    load "backlog-fill-$number.$repetition" offline --count "$count" --messages $((count * each)) --qos 1 --payload 256 --v5 \
      --client-prefix "fleet$number" --inflight 100 --burst 50 --phase fill
    left=$((left - count)) number=$((number + 1))
  done
  sleep 40 # longer than log.young_age
  after_fill=$(resident) queued=$(metric postroad_queued_messages)
  rm -f "$work/data/ports.json"
  kill_broker
  begin=$EPOCHREALTIME
  start_postroad 1
  ready=$(awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.2f", end - begin }')
  after_start=$(resident)
  own=$(for _ in $(seq $returning); do milliseconds mosquitto_sub --version || true; done | sort -n | sed -n $((returning / 2))p)
  for client in $(seq $returning); do
    first_message $((client % number)) $((client * 37 % (count < fleet ? count : fleet)))
  done | sort -n >"$work/first"
  echo "{\"queued\": $queued, \"resident_bytes\": $after_fill, \"ready_seconds\": $ready, \"resident_after_start\": $after_start," \
    "\"first_p50_ms\": $(sed -n $((returning / 2))p "$work/first"), \"first_max_ms\": $(tail -n 1 "$work/first"), \"own_p50_ms\": $own}" \
    >"$results/backlog.$repetition.json"
  echo "== backlog.$repetition: $(cat "$results/backlog.$repetition.json")"
  stop_broker
done
columns=/queued=queued,/resident_bytes=resident\ bytes,/ready_seconds=seconds\ to\ /ready,/resident_after_start=resident\ then
columns+=,/first_p50_ms=first\ message\ p50\ ms,/first_max_ms=at\ most,/own_p50_ms=mosquitto_sub\ itself
summarize "$messages messages wait for $sessions clients" --columns "$columns" "$results"/backlog.[0-9]*.json
done_with_faults
