#!/usr/bin/env bash
# Postroad and its peers under the same load, in turn and interleaved, each alone on one core; a floor beside each figure.
#
#   perf/compare.sh [--contenders "postroad-memory mosquitto …"] [scenario …]        default: all
#
# SECONDS_EACH (8) is the time of each run, REPETITIONS (3) how often all of it is done. Peers: perf/peers.sh. A contender that can't
# do a scenario, or loses what it must not, is in the table with what happened. MQTT 3.1.1, which all of them speak.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/brokers.sh"
seconds_each=${SECONDS_EACH:-8}
contenders=(postroad-memory postroad-fsync mosquitto rumqttd rabbitmq nats nats-fsync)
if [ "${1:-}" = --contenders ]; then
  read -ra contenders <<<"$2"
  shift 2
fi
for contender in "${contenders[@]}"; do promise_of "$contender" >/dev/null; done

# Options of each scenario; a burst is the messages of one write, equal for all. Closed loops say what a message costs at the broker's
# best; `rated` is an open loop that all of them keep; `half` one at half of the rate of the slowest of those that matter.
declare -A scenarios=(
  [qos0-pair-b1]="pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 1"
  [qos0-pair-b32]="pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 32"
  [qos1-50pairs]="pairs --count 50 --qos 1 --payload 256 --inflight 100 --burst 10 --persistent"
  [qos1-50pairs-rated]="pairs --count 50 --qos 1 --payload 256 --rate 5000 --persistent --warmup 2"
  [qos0-fanout1000-b1]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 1"
  [qos0-fanout1000-b8]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 8"
  [qos0-fanout1000-b32]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 32"
  [qos1-share10]="share --count 10 --members 10 --qos 1 --payload 256 --inflight 100 --burst 10"
  [qos1-fanin]="fanin --count 50 --qos 1 --payload 256 --inflight 20 --burst 10"
  [idle]="idle --count 10000 --duration 0"
)
order=(qos0-pair-b1 qos0-pair-b32 qos1-50pairs qos1-50pairs-rated qos0-fanout1000-b1 qos0-fanout1000-b8 qos0-fanout1000-b32 qos1-share10 qos1-fanin idle)
[ $# -eq 0 ] || order=("$@")
for name in "${order[@]}"; do
  [ -n "${scenarios[$name]:-}" ] || fail "no scenario $name; there are: ${!scenarios[*]}"
done

# What a contender has no promise for says nothing: only those that write are run twice over.
takes_part() {
  case $1:$2 in
    *-fsync:qos0* | *-fsync:idle | *-os:qos0*) return 1 ;; # nothing of it is written
    *) return 0 ;;
  esac
}

declare -A files
for repetition in $(seq "$repetitions"); do
  for name in "${order[@]}"; do
    for contender in "${contenders[@]}"; do
      takes_part "$contender" "$name" || continue
      measured_pid=''
      "start_$contender"
      # shellcheck disable=SC2086 # the options of a scenario are words
      may_fail=1 load "compare-$name-$contender.$repetition" --tolerate-loss --timeout 20 --duration "$seconds_each" ${scenarios[$name]}
      files[$name]+=" $results/compare-$name-$contender.$repetition.json"
      stop_broker
    done
  done
done

columns=/broker/cpu_us_per_delivered=broker\ CPU\ µs\ per\ delivery,/traffic/received_per_second=received/s
columns+=,/traffic/acknowledge/p50_us=PUBACK\ p50\ µs,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs
columns+=,/traffic/end_to_end/p50_us=end\ to\ end\ p50\ µs,/traffic/end_to_end/p99_us=p99\ µs,/traffic/missing=missing
for name in "${order[@]}"; do
  present=()
  for file in ${files[$name]:-}; do [ ! -s "$file" ] || present+=("$file"); done
  [ ${#present[@]} -gt 0 ] || continue
  if [ "$name" = idle ]; then
    summarize "compare: $name" --columns "/broker/rss_per_connection=resident bytes per connection" "${present[@]}"
  else
    summarize "compare: $name" --columns "$columns" "${present[@]}"
  fi
done
{
  echo "What an acknowledgement means:"
  for contender in "${contenders[@]}"; do echo "- $contender: $(promise_of "$contender")"; done
} | tee -a "$results/summary.md"
done_with_faults
