#!/usr/bin/env bash
# Stored messages go to clients that come back: how fast beside what the same clients take live (target: at least half), and
# what others feel of it meanwhile (target: their p99 less than doubled). Then a crowd of 15,000 that returns at once for 100
# messages each: without a limit, at a rate (drain.per_second), and after a restart, by the scheduler (restart.delivery); and
# the other way round, how it drains beside a flood of realtime messages.
#
#   perf/drain.sh [--messages 1000000] [--sessions 1000] [sessions | crowd …]        default: both
#
# Those that are watched have four times as many messages drained beside them, so that the drain lasts longer than they are
# watched; if not, that is a fault. The clients that drain share the generator's core with them, at the lowest priority; the
# generator's own lag is shown beside the figures that it would explain. CROWD (15000) is the size of the crowd, CROWD_RATE
# (50000) its rate.
source "$(dirname "$0")/lib.sh"
parts=() sizes=()
while [ $# -gt 0 ]; do
  case $1 in
    sessions | crowd) parts+=("$1") && shift ;;
    *) sizes+=("${@:1:2}") && shift $(($# > 1 ? 2 : 1)) ;;
  esac
done
read_sizes "${sizes[@]}"
[ ${#parts[@]} -gt 0 ] || parts=(sessions crowd)
crowd=${CROWD:-15000} crowd_rate=${CROWD_RATE:-50000}
watched=(pairs --count 10 --qos 1 --payload 256 --rate 2000 --v5 --persistent --warmup 1 --client-prefix watched)

# Stores $1 messages for $2 clients that are away. What waits leaves memory within log.young_age.
fill() {
  stored=(offline --count "$2" --messages "$1" --qos 1 --payload 256 --v5)
  load "drain-fill.$repetition" "${stored[@]}" --inflight 100 --burst 50 --phase fill
  sleep 40
}

# Starts a load as $1.json beside others, with niceness $2; the rest are its options.
begin_beside() {
  rm -f "$results/$1.json"
  nice -n "$2" taskset -c "$bench_cpu" "$bench" "${@:3}" --port "$port" --broker-pid "$broker_pid" --json "$results/$1.json" >/dev/null &
  others+=($!)
}

# Watches others for $3 seconds as $2, beside the drain of what is stored as $1.
watch_beside() {
  begin_beside "$1" 19 "${stored[@]}" --phase drain
  load "$2" "${watched[@]}" --duration "$3"
  kill -0 "${others[0]}" 2>/dev/null || { echo "the drain ended before the watch" >&2 && faults=$((faults + 1)); }
  wait "${others[@]}" || faults=$((faults + 1))
  others=()
}

drain_sessions() {
  local files=() others_files=() beside=()
  for repetition in $(seq "$repetitions"); do
    start_postroad 1
    load "drain-live.$repetition" pairs --count "$sessions" --qos 1 --payload 256 --inflight 100 --burst 50 --v5 --persistent --messages "$messages" --client-prefix live
    fill "$messages" "$sessions"
    load "drain-stored.$repetition" "${stored[@]}" --phase drain
    files+=("$results/drain-live.$repetition.json" "$results/drain-stored.$repetition.json")
    fill $((4 * messages)) "$sessions"
    load "drain-alone.$repetition" "${watched[@]}" --duration 8
    watch_beside "drain-beside.$repetition" "drain-watched.$repetition" 8
    beside+=("$results/drain-beside.$repetition.json")
    others_files+=("$results/drain-alone.$repetition.json" "$results/drain-watched.$repetition.json")
    stop_broker
  done
  columns=/traffic/received_per_second=received/s,/traffic/missing=missing,/traffic/repeated=repeated,/broker/cpu_us_per_delivered=broker\ CPU\ µs
  summarize "Live, and $messages stored messages of $sessions sessions" --against live --columns "$columns" "${files[@]}"
  summarize "Others during the drain" --against alone --columns "$watched_columns" "${others_files[@]}"
  table --columns "$drained_columns" "${beside[@]}"
}

# The crowd returns to a server with the options that $1 stands for.
crowd_returns() {
  local kind=$1 options=()
  [ "$kind" != rate ] || options=(--set drain.per_second="$crowd_rate")
  [ "$kind" != restart ] || options=(--set restart.delivery=scheduled)
  start_postroad 1 "${options[@]}"
  fill $((100 * crowd)) "$crowd"
  if [ "$kind" = restart ]; then
    kill_broker
    start_postroad 1 "${options[@]}"
  fi
  load "crowd-$kind-alone.$repetition" "${watched[@]}" --duration 3
  watch_beside "crowd-$kind-drain.$repetition" "crowd-$kind-watched.$repetition" 3
  others_files+=("$results/crowd-$kind-alone.$repetition.json" "$results/crowd-$kind-watched.$repetition.json")
  beside+=("$results/crowd-$kind-drain.$repetition.json")
  stop_broker
}

# The crowd drains alone, and beside others that send all they can.
crowd_beside_flood() {
  local kind flood=(pairs --count 50 --qos 1 --payload 256 --inflight 100 --burst 20 --v5 --persistent --duration 30 --client-prefix flood)
  for kind in alone flooded; do
    start_postroad 1
    fill $((100 * crowd)) "$crowd"
    if [ $kind = flooded ]; then
      begin_beside "crowd-flood.$repetition" 0 "${flood[@]}"
      sleep 2 # it is under way when the crowd comes; both share the generator's core
    fi
    load "crowd-lane-$kind.$repetition" "${stored[@]}" --phase drain
    flood_files+=("$results/crowd-lane-$kind.$repetition.json")
    [ ${#others[@]} -eq 0 ] || wait "${others[@]}" || faults=$((faults + 1))
    others=()
    stop_broker
  done
}

drain_crowd() {
  local kind others_files=() beside=() flood_files=()
  for repetition in $(seq "$repetitions"); do
    for kind in free rate restart; do
      crowd_returns $kind
    done
    crowd_beside_flood
  done
  summarize "Others while $crowd clients return for 100 messages each (rate: $crowd_rate/s)" --against alone --columns "$watched_columns" "${others_files[@]}"
  table --columns "$drained_columns" "${beside[@]}"
  summarize "The drain of such a crowd beside a flood of realtime messages" --against alone --columns "$drained_columns" "${flood_files[@]}"
}

watched_columns=/traffic/acknowledge/p99_us=PUBACK\ p99\ µs,/traffic/acknowledge/p50_us=PUBACK\ p50\ µs,/traffic/end_to_end/p99_us=end\ to\ end\ p99\ µs
watched_columns+=,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs,/traffic/missing=missing
drained_columns=/traffic/received_per_second=drained/s,/traffic/received=received,/traffic/missing=missing,/connections/seconds_to_last=last\ CONNACK\ after\ s
drained_columns+=,/broker/before/rss_bytes=resident\ before,/broker/after/peak_bytes=at\ most
for part in "${parts[@]}"; do
  "drain_$part"
done
done_with_faults
