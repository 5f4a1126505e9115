#!/usr/bin/env bash
# Mosquitto and Postroad under the same load in the same run, in turn, each alone on its core.
#
#   perf/side-by-side.sh [scenario …]        default: all; results as JSON in target/perf-results/
#
# SECONDS_EACH is the time of each run; the rest see perf/lib.sh.
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-10}

# Options of each scenario; a burst is the messages of one write, equal for both brokers. `rated` runs are open loops
# at a rate that both keep, so nothing gathers behind a slow broker; the others are as fast as the broker is.
declare -A scenarios=(
  [qos1-50pairs]="pairs --count 50 --qos 1 --payload 256 --rate 20000 --burst 10 --v5 --persistent"
  [qos1-50pairs-saturated]="pairs --count 50 --qos 1 --payload 256 --inflight 200 --burst 20 --v5 --persistent"
  [idle-15000]="idle --count 15000 --duration 0"
)
order=()
for burst in 1 8 32; do
  scenarios[qos0-1to1-b$burst]="pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst $burst"
  scenarios[qos0-1to1000-b$burst]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst $burst"
  scenarios[qos0-1to1-rated-b$burst]="pairs --count 1 --qos 0 --payload 64 --rate 20000 --burst $burst"
  scenarios[qos0-1to1000-rated-b$burst]="fanout --count 1000 --qos 0 --payload 64 --rate 50 --burst $burst"
  order+=("qos0-1to1-b$burst" "qos0-1to1000-b$burst" "qos0-1to1-rated-b$burst" "qos0-1to1000-rated-b$burst")
done
order+=(qos1-50pairs qos1-50pairs-saturated idle-15000)
[ $# -eq 0 ] || order=("$@")
for name in "${order[@]}"; do
  [ -n "${scenarios[$name]:-}" ] || fail "no scenario $name; there are: ${!scenarios[*]}"
done

traffic=() idle=()
for name in "${order[@]}"; do
  for repetition in $(seq "$repetitions"); do
    for broker in mosquitto postroad; do
      "start_$broker" 1
      # shellcheck disable=SC2086 # the options of a scenario are words
      load "$name-$broker.$repetition" --duration "$seconds_each" ${scenarios[$name]}
      file=$results/$name-$broker.$repetition.json
      if [ "${name%%-*}" = idle ]; then idle+=("$file"); else traffic+=("$file"); fi
      stop_broker
    done
  done
done

columns=/broker/cpu_us_per_delivered=broker\ CPU\ µs\ per\ delivery,/traffic/received_per_second=received/s
columns+=,/traffic/acknowledge/p50_us=PUBACK\ p50\ µs,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs
columns+=,/traffic/end_to_end/p99_us=end\ to\ end\ p99\ µs,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs
if [ ${#traffic[@]} -gt 0 ]; then
  summarize "Beside Mosquitto" --against mosquitto --columns "$columns" "${traffic[@]}"
fi
if [ ${#idle[@]} -gt 0 ]; then
  columns=/broker/rss_per_connection=resident\ bytes\ per\ connection,/broker/cpu_us_per_connection=CPU\ µs\ per\ connection
  summarize "Idle connections with one subscription each" --against mosquitto --columns "$columns" "${idle[@]}"
fi
done_with_faults
