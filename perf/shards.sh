#!/usr/bin/env bash
# Two shards against one: CPU of the broker for each message delivered.
#
#   perf/shards.sh
#
# `one`: a shard on the broker's core. `two`: two shards on two cores, of which the generator needs one too where there are no
# more (TWO_CPUS names others). `crowded`: two shards on the broker's core, so that the generator keeps its own.
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-10} two_cpus=${TWO_CPUS:-$broker_cpu,$bench_cpu}

declare -A loads=(
  [qos0-pairs]="pairs --count 50 --qos 0 --payload 64 --rate 50000 --burst 8"
  [qos0-fanout]="fanout --count 1000 --qos 0 --payload 64 --rate 50 --burst 1"
  [qos1-pairs]="pairs --count 50 --qos 1 --payload 256 --rate 20000 --burst 10 --v5 --persistent"
)
order=(qos0-pairs qos0-fanout qos1-pairs)
files=()
for name in "${order[@]}"; do
  for repetition in $(seq "$repetitions"); do
    for kind in one two crowded; do
      case $kind in
        one) start_postroad_on "$broker_cpu" --set shards=1 ;;
        two) start_postroad_on "$two_cpus" --set shards=2 ;;
        crowded) start_postroad_on "$broker_cpu" --set shards=2 ;;
      esac
      # shellcheck disable=SC2086 # the options of a load are words
      load "shards-$name-$kind.$repetition" ${loads[$name]} --duration "$seconds_each" --warmup 1
      files+=("$results/shards-$name-$kind.$repetition.json")
      stop_broker
    done
  done
done
columns=/broker/cpu_us_per_delivered=broker\ CPU\ µs\ per\ delivery,/traffic/received_per_second=received/s
columns+=,/traffic/end_to_end/p99_us=end\ to\ end\ p99\ µs,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs
summarize "Two shards against one" --against one --columns "$columns" "${files[@]}"
done_with_faults
