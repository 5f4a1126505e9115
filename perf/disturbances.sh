#!/usr/bin/env bash
# What others feel of clients that misbehave: 50 durable pairs at a modest rate, without and with the disturbance, in turn on
# the same server; and the server's memory at its most.
#
#   perf/disturbances.sh [garbage | half-open | stalled-reader | flood …]        default: all
#
# SECONDS_EACH is the time of each run. The misbehaving share the generator's core, at the lowest priority; the generator's
# own lag is shown beside the figures that it would explain.
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-20}
kinds=(garbage half-open stalled-reader flood)
[ $# -eq 0 ] || kinds=("$@")
pairs=(pairs --count 50 --qos 1 --payload 256 --rate 5000 --v5 --persistent --warmup 2 --duration "$seconds_each")
# Queues end where a stalled reader reaches it within the run; what it loses is dropped, for its own sake only.
limits=(--set queue.policy=drop_oldest --set queue.messages_max=10000)

# Starts a misbehaving process on port $1; the rest are its options.
misbehave() {
  local at=$1 log
  shift
  log=$work/disturb-${#others[@]}
  nice -n 19 taskset -c "$bench_cpu" "$bench" disturb "$@" --port "$at" --duration $((seconds_each + 6)) \
    --json "$log.json" >"$log.txt" 2>&1 &
  others+=($!)
}

disturb() {
  case $1 in
    garbage) misbehave "$port" garbage --rate 500 && misbehave "$http_port" garbage --rate 100 --seed 2 ;;
    half-open) misbehave "$port" half-open --count 3000 && misbehave "$http_port" half-open --count 200 ;;
    stalled-reader) misbehave "$port" stalled-reader --count 10 --filter 'bench/#' --qos 1 ;;
    flood) misbehave "$port" flood --count 4 --payload 1024 ;;
    *) fail "no disturbance $1" ;;
  esac
}

files=()
for kind in "${kinds[@]}"; do
  shards=1
  [ "$kind" != flood ] || shards=2 # the flooded subscriber's shard, and another
  for repetition in $(seq "$repetitions"); do
    start_postroad $shards "${limits[@]}"
    load "$kind-quiet.$repetition" "${pairs[@]}"
    disturb "$kind"
    sleep 2 # the disturbance is under way when the others come
    load "$kind-disturbed.$repetition" "${pairs[@]}"
    for number in "${!others[@]}"; do
      wait "${others[$number]}" || { faults=$((faults + 1)) && echo "the disturbance did not come about" >&2; }
      cat "$work/disturb-$number.txt"
      cp "$work/disturb-$number.json" "$results/$kind-by-$number.$repetition.json"
    done
    others=()
    is_ready || { faults=$((faults + 1)) && echo "the server is not ready after $kind" >&2; }
    files+=("$results/$kind-quiet.$repetition.json" "$results/$kind-disturbed.$repetition.json")
    stop_broker
  done
done

columns=/traffic/acknowledge/p99_us=PUBACK\ p99\ µs,/traffic/end_to_end/p99_us=end\ to\ end\ p99\ µs
columns+=,/traffic/end_to_end/max_us=max\ µs,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs
columns+=,/traffic/second_min_received=worst\ second,/traffic/missing=missing,/broker/before/rss_bytes=resident\ before
columns+=,/broker/after/rss_bytes=resident\ after,/broker/after/peak_bytes=at\ most
summarize "Others beside a disturbance" --against quiet --columns "$columns" "${files[@]}"
done_with_faults
