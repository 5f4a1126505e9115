#!/usr/bin/env bash
# The four lanes of deliveries: each is watched alone, and while each of the others is flooded. What it shows is how late a lane's
# messages are, as their receivers see it, and by how much a flood elsewhere makes that worse.
#
#   perf/lanes.sh [--seconds 8] [realtime | retry | drain | scheduled …]        watched lanes; default: all
#
# What is timed:
#   realtime    from the publisher's sending to the arrival
#   retry       from half a second after a first copy, which is not acknowledged, to the second: that is the deadline
#   drain       from a client's turn to connect to the arrival of each of the 20 messages that wait for it; 200 come each second
#   scheduled   from the moment at which a message is due to its arrival
# What floods: 50 pairs that publish all they can; 50 pairs whose 50,000 messages a second are all sent twice; 4,000,000 messages
# that wait for 1,000 clients that come back together; 1,000,000 messages (scheduled.max) that are due as fast as they could be published.
# Each run has a server of its own. The generator of the flood shares the core of the one that is watched, at the lowest priority;
# the lag of the watched one stands beside.
source "$(dirname "$0")/lib.sh"
lanes=(realtime retry drain scheduled) watched=() seconds=8
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    realtime | retry | drain | scheduled) watched+=("$1") && shift ;;
    *) fail "unknown argument $1; see the head of $0" ;;
  esac
done
[ ${#watched[@]} -gt 0 ] || watched=("${lanes[@]}")
options=(--set retry.ack_timeout_min=500ms --set retry.ack_timeout_max=500ms)
few=(--count 10 --qos 1 --payload 256 --duration "$seconds" --warmup 1 --client-prefix watched)
many=(--count 50 --qos 1 --payload 256 --client-prefix flood)
returning=(offline --count $((200 * seconds)) --messages $((4000 * seconds)) --qos 1 --payload 256 --v5 --client-prefix watched)
crowd=(offline --count 1000 --messages 4000000 --qos 1 --payload 256 --v5 --client-prefix flood)
lead=50 # seconds until the first message of the flood of what is scheduled is due: longer than publishing it and log.young_age

# Stores what the watched lane needs.
prepare_watch() {
  [ "$1" != drain ] || load "lanes-fill.$repetition" "${returning[@]}" --inflight 100 --burst 20 --phase fill
}

# Stores what the flood needs.
prepare_flood() {
  [ "$1" != drain ] || load "lanes-fill.$repetition" "${crowd[@]}" --inflight 100 --burst 50 --phase fill
}

watch() {
  case $1 in
    realtime) load "$2" pairs "${few[@]}" --rate 2000 --v5 --persistent ;;
    retry) load "$2" pairs "${few[@]}" --rate 500 --persistent --second-copies 0.5 ;;
    drain) load "$2" "${returning[@]}" --phase drain --connect-rate 200 ;;
    scheduled) load "$2" pairs "${few[@]}" --rate 2000 --v5 --persistent --deliver-after 1 ;;
  esac
}

# Floods a lane, in the background, and returns when the flood has begun.
flood() {
  case $1 in
    realtime) beside pairs "${many[@]}" --inflight 100 --burst 20 --v5 --persistent --duration $((seconds + 6)) && sleep 2 ;;
    retry) beside pairs "${many[@]}" --rate 50000 --burst 20 --persistent --second-copies 0.5 --duration $((seconds + 6)) && sleep 2 ;;
    drain) beside "${crowd[@]}" --phase drain && sleep 0.5 ;;
    scheduled)
      beside pairs "${many[@]}" --inflight 100 --burst 20 --v5 --persistent --deliver-after $lead --messages 1000000 --duration 60 --timeout 120
      sleep $lead
      ;;
  esac
}

# Starts a load beside others.
beside() {
  nice -n 19 taskset -c "$bench_cpu" "$bench" "$@" --port "$port" --broker-pid "$broker_pid" --json "$results/lanes-flood.json" >"$work/flood.log" 2>&1 &
  others+=($!)
}

# Watches lane $1 beside a flood of $2, or alone.
run_lane() {
  local name=lanes-$1-$2.$repetition
  start_postroad 1 "${options[@]}"
  prepare_watch "$1"
  prepare_flood "$2"
  if [ "$1" = drain ] || [ "$2" = drain ]; then
    sleep 40 # longer than log.young_age: it has left memory
  fi
  flood "$2"
  watch "$1" "$name"
  if [ ${#others[@]} -gt 0 ]; then
    kill -0 "${others[0]}" 2>/dev/null || { echo "the flood of $2 ended before $1 had been watched" >&2 && faults=$((faults + 1)); }
    kill "${others[@]}" 2>/dev/null || true
    wait "${others[@]}" 2>/dev/null || true
    others=()
  fi
  stop_broker
  files+=("$results/$name.json")
}

columns=/traffic/end_to_end/p99_us=p99\ µs,/traffic/end_to_end/p50_us=p50\ µs,/traffic/end_to_end/max_us=at\ most\ µs,/traffic/end_to_end/count=timed
columns+=,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs,/traffic/missing=missing
for lane in "${watched[@]}"; do
  files=()
  for repetition in $(seq "$repetitions"); do
    for other in alone "${lanes[@]}"; do
      [ "$other" = "$lane" ] || run_lane "$lane" "$other"
    done
  done
  summarize "Lane $lane, alone and beside a flood of another" --against alone --columns "$columns" "${files[@]}"
done
done_with_faults
