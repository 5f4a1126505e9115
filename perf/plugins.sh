#!/usr/bin/env bash
# What publishers and receivers feel while plugins are replaced under load: 50 durable pairs at 50,000 messages/s in all, with a plugin
# that reads topic and level of each message and hands its count over, without and with 100 reloads (target: nothing lost, repeated or
# out of order, no connection closed, p99 moved by less than 1 ms); and the same without any plugin.
#
#   perf/plugins.sh [--seconds 30] [--rate 50000] [--shards 1] [--reloads 100] [--kinds none,quiet,reloads]
#
# A reload that the run did not leave time for is a fault: then the machine was too busy for its figures to mean anything.
source "$(dirname "$0")/lib.sh"
seconds=30 rate=50000 shards=1 reloads=100 kinds=none,quiet,reloads
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    --rate) rate=$2 && shift 2 ;;
    --shards) shards=$2 && shift 2 ;;
    --reloads) reloads=$2 && shift 2 ;;
    --kinds) kinds=$2 && shift 2 ;;
    *) fail "unknown argument $1; see the head of $0" ;;
  esac
done
pairs=(pairs --count 50 --qos 1 --payload 256 --rate "$rate" --v5 --persistent --warmup 2 --duration "$seconds")

# Version $1 of the plugin; versions differ in a comment, so that each is another set.
body='
local seen = 0
return {
  route = function(message)
    if message.topic ~= "" and message.qos > 0 then
      seen = seen + 1
    end
  end,
  on_save = function() return { seen = seen } end,
  on_load = function(previous) seen = previous and previous.seen or 0 end,
}'
script() {
  printf -- '-- version %s%s\n' "$1" "$body" >"$work/scripts/count.lua"
}

# One reload; whether it was made.
reload() {
  local answer
  exec 5<>"/dev/tcp/127.0.0.1/$http_port" || return 1
  printf 'POST /v1/plugins/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' >&5
  read -r -t 10 -u 5 answer || answer=''
  exec 5>&-
  [[ $answer == *' 200 '* ]]
}

# Spreads the reloads over the run, and ends with it; counts those that were made. It runs on the generator's core, and starts no process
# there: a hundred of them would be felt as the server's lag.
reload_all() {
  local version made=0
  exec 6<>"$work/never" # nobody writes to it
  for ((version = 2; version <= reloads + 1; version++)); do
    [ ! -e "$work/over" ] || break
    script "$version"
    ! reload || made=$((made + 1))
    read -r -t "$pause" -u 6 || true
  done
  echo "$made" >"$work/reloads"
}

# Run $1 (none, quiet, reloads).
run_kind() {
  local name=plugins-$1.$repetition pid='' options=() made
  case $1 in none | quiet | reloads) ;; *) fail "there is no kind $1; see the head of $0" ;; esac
  rm -rf "$work/scripts" "$work/over" "$work/reloads" && mkdir "$work/scripts"
  if [ "$1" != none ]; then
    script 1
    options=(--set "plugins.dir=$work/scripts")
  fi
  start_postroad "$shards" "${options[@]}"
  if [ "$1" = reloads ]; then
    (sleep 2 && taskset -c "$bench_cpu" bash -c 'reload_all') &
    pid=$!
    others+=("$pid")
  fi
  load "$name" "${pairs[@]}"
  if [ -n "$pid" ]; then
    touch "$work/over"
    wait "$pid" || true
    others=()
    made=$(cat "$work/reloads" 2>/dev/null || echo 0)
    [ "$made" = "$reloads" ] || { echo "$made of $reloads reloads were made" >&2 && faults=$((faults + 1)); }
    http /metrics | grep -E '^postroad_plugins_(generation|strays|reloads)|^postroad_plugin_(calls|errors)_total.*route' | tee "$results/$name.metrics"
  fi
  stop_broker
  files+=("$results/$name.json")
}
export -f script reload reload_all
[ "$reloads" -gt 0 ] || fail '--reloads is a number above 0'
pause=$(awk -v seconds="$seconds" -v reloads="$reloads" 'BEGIN { printf "%.3f", 0.8 * seconds / reloads }')
mkfifo "$work/never"
export work body reloads pause

files=()
for repetition in $(seq "$repetitions"); do
  for kind in ${kinds//,/ }; do
    export http_port
    run_kind "$kind"
  done
done
columns=/traffic/end_to_end/p99_us=end\ to\ end\ p99\ µs,/traffic/end_to_end/p50_us=p50\ µs,/traffic/end_to_end/max_us=max\ µs
columns+=,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs
columns+=,/traffic/second_min_received=worst\ second,/traffic/missing=missing,/broker/cpu_us_per_delivered=CPU\ µs\ per\ delivery
summarize "$rate messages/s while plugins are replaced $reloads times" --against quiet --columns "$columns" "${files[@]}"
done_with_faults
