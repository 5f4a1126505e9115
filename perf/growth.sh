#!/usr/bin/env bash
# How cost grows with what is there: connections, shards, sessions with a subscription each, stored messages.
#
#   perf/growth.sh [connections] [sessions] [stored] [idle]        default: all; pictures in perf/results/
#
# SECONDS_EACH (8) is the time of each load, MOST (1000000) the largest number of sessions and stored messages. What must grow:
# memory with sessions and their subscriptions; the disk with stored messages; the time of a restart with both, but for what is
# in the old generation. What must not: CPU and p99 of a message that has nothing to do with them.
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-8} most=${MOST:-1000000}
pictures=perf/results
mkdir -p "$pictures"
[ $# -gt 0 ] || set -- connections sessions stored idle

# A point of a picture: point PICTURE SERIES X Y
point() { printf '%s\t%s\t%s\n' "$2" "$3" "$4" >>"$work/$1.tsv"; }

draw() {
  local name=$1
  shift
  "$bench" plot lines "$work/$name.tsv" --out "$pictures/growth-$name.svg" --log-x "$@"
  { echo "growth: $name" && sed 's/^/    /' "$work/$name.tsv" && echo; } | tee -a "$results/summary.md"
}

# A load that has nothing to do with what is there: 10 pairs, QoS 1, 5,000/s.
bystander() {
  load "$1" pairs --count 10 --qos 1 --payload 256 --rate 5000 --v5 --persistent --warmup 2 --duration "$seconds_each" \
    --client-prefix bystander
}

resident() { awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$broker_pid/status"; }

# CPU and p99 of the last load into the pictures NAME-cpu and NAME-p99: put NAME SERIES X FILE
put() {
  point "$1-cpu" "$2" "$3" "$(figure "$results/$4.json" broker cpu_us_per_delivered)"
  point "$1-p99" "$2" "$3" "$(figure "$results/$4.json" traffic acknowledge p99_us)"
}

draw_both() {
  draw "$1-cpu" --title "CPU for each delivered message, $2" --x-label "$3" --y-label "µs"
  draw "$1-p99" --title "p99 to PUBACK, $2" --x-label "$3" --y-label "µs" --log-y
}

grow_connections() {
  local shards count name
  for shards in 1 2; do
    for count in 10 100 1000 10000; do
      name=growth-connections-$count-shards-$shards
      if [ "$shards" = 1 ]; then start_postroad 1; else start_postroad_on "$broker_cpu,$bench_cpu" --set shards=2; fi
      load "$name" pairs --count $((count / 2)) --qos 1 --payload 64 --rate 20000 --v5 --warmup 2 --duration "$seconds_each"
      put connections "shards: $shards" "$count" "$name"
      load "$name-closed" pairs --count $((count / 2)) --qos 1 --payload 64 --v5 --duration "$seconds_each" \
        --inflight $((count < 4000 ? 4000 / count : 1)) --client-prefix closed
      point connections-rate "shards: $shards" "$count" "$(figure "$results/$name-closed.json" traffic received_per_second)"
      stop_broker
    done
  done
  draw_both connections "QoS 1, 64 B, 20,000/s" connections
  draw connections-rate --title "Delivered per second, QoS 1, 64 B, 2,000 or more under way" --x-label connections --y-label "1/s"
}

grow_sessions() {
  local count=0 target batch before ready
  start_postroad 1
  # What a load and a crowd leave behind in the process is no session's.
  load growth-sessions-0 connect --count 10000 --v5 --client-prefix crowd >/dev/null
  bystander growth-sessions-0
  before=$(resident)
  # A shard takes a million; the bystander needs its own.
  for target in 1000 10000 100000 900000; do
    [ "$target" -le "$most" ] || break
    while [ $count -lt "$target" ]; do
      batch=$((target - count < 10000 ? target - count : 10000))
      load "growth-sessions-$target" connect --count "$batch" --persistent --subscribe --v5 --client-prefix "s$count" >/dev/null
      count=$((count + batch))
    done
    bystander "growth-sessions-$target"
    put sessions "5,000/s beside them" "$target" "growth-sessions-$target"
    point sessions-memory "bytes for each" "$target" $((($(resident) - before) / target))
  done
  kill_broker
  ready=$(date +%s%N)
  start_postroad 1
  echo "restart with $count sessions: $(awk -v ns=$(($(date +%s%N) - ready)) 'BEGIN { printf "%.2f", ns / 1e9 }') s" | tee -a "$results/summary.md"
  stop_broker
  draw_both sessions "beside sessions that are offline" "persistent sessions with a subscription each"
  draw sessions-memory --title "Resident memory for each offline session" --x-label sessions --y-label bytes
}

grow_stored() {
  local target
  for target in 1000 10000 100000 1000000; do
    [ "$target" -le "$most" ] || break
    start_postroad 1
    load "growth-stored-$target-fill" offline --count 1000 --messages "$target" --qos 1 --v5 --payload 256 --inflight 50 --phase fill
    bystander "growth-stored-$target"
    put stored "5,000/s beside them" "$target" "growth-stored-$target"
    point stored-memory "resident MB" "$target" $(($(resident) / 1000000))
    load "growth-stored-$target-drain" offline --count 1000 --messages "$target" --qos 1 --v5 --payload 256 --inflight 50 --phase drain
    point stored-drain "drained per second" "$target" "$(figure "$results/growth-stored-$target-drain.json" traffic received_per_second)"
    stop_broker
  done
  draw_both stored "beside stored messages" "stored messages of 1,000 sessions"
  draw stored-memory --title "Resident memory" --x-label "stored messages" --y-label MB
  draw stored-drain --title "Drain of 1,000 sessions that come back" --x-label "stored messages" --y-label "1/s" --log-y
}

# CPU of connections that only keep alive: a PINGREQ of each in 30 s.
grow_idle() {
  local before after
  start_postroad 1
  taskset -c "$bench_cpu" "$bench" idle --count 15000 --keep-alive 60 --duration 50 --port "$port" >/dev/null &
  others+=($!)
  sleep 10
  before=$(awk '{ print $14 + $15 }' "/proc/$broker_pid/stat")
  sleep 30
  after=$(awk '{ print $14 + $15 }' "/proc/$broker_pid/stat")
  wait "${others[@]}"
  others=()
  awk -v ticks=$((after - before)) 'BEGIN { printf "15,000 idle connections, keep alive 60 s: %.2f %% of a core\n\n", ticks / 30 }' |
    tee -a "$results/summary.md"
  stop_broker
}

for what in "$@"; do "grow_$what"; done
done_with_faults
