#!/usr/bin/env bash
# Mosquitto and Postroad under the same load in the same run, one after the other, each alone on its core.
#
#   perf/side-by-side.sh [scenario …]        default: all; results as JSON in target/perf-results/
#
# Needs mosquitto and, unless POSTROAD_BIN and POSTROAD_BENCH name them, release builds of both binaries.
# BROKER_CPU and BENCH_CPU are the cores of the broker and of the generator; SECONDS_EACH the time of each run.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
postroad=${POSTROAD_BIN:-$target/release/postroad}
bench=${POSTROAD_BENCH:-$target/release/postroad-bench}
broker_cpu=${BROKER_CPU:-0} bench_cpu=${BENCH_CPU:-1} seconds_each=${SECONDS_EACH:-10}
results=target/perf-results
work=$(mktemp -d "$PWD/target/perf-work.XXXXXX")
mkdir -p "$results"
pid=

finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

# Options of each scenario; the burst is the number of messages per write, equal for both brokers.
declare -A scenarios=(
  [qos0-1to1]="pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 100"
  [qos0-1to1000]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 20"
  [qos1-50pairs]="pairs --count 50 --qos 1 --payload 256 --rate 20000 --burst 10 --v5 --persistent"
  [qos1-50pairs-saturated]="pairs --count 50 --qos 1 --payload 256 --inflight 200 --burst 20 --v5 --persistent"
  [idle-10000]="idle --count 10000 --duration 0"
)
order=(qos0-1to1 qos0-1to1000 qos1-50pairs qos1-50pairs-saturated idle-10000)
[ $# -eq 0 ] || order=("$@")

# Waits until the port answers, at most 10 s.
await_port() {
  for _ in $(seq 200); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
    sleep 0.05
  done
  echo "nobody listens on port $1" >&2
  exit 1
}

start_mosquitto() {
  port=${MOSQUITTO_PORT:-18830}
  # No limits that would drop what Postroad delivers; persistence off: its periodic dump is no durability.
  printf '%s\n' "listener $port 127.0.0.1" "allow_anonymous true" "max_queued_messages 0" \
    "max_inflight_messages 1024" "persistence false" >"$work/mosquitto.conf"
  (ulimit -n "$(ulimit -Hn)"; exec taskset -c "$broker_cpu" mosquitto -c "$work/mosquitto.conf" >"$work/mosquitto.log" 2>&1) &
  pid=$!
  await_port "$port"
}

start_postroad() {
  rm -rf "$work/data"
  (ulimit -n "$(ulimit -Hn)"; exec taskset -c "$broker_cpu" "$postroad" serve --data "$work/data" --set shards=1 \
    --set listen.mqtt=127.0.0.1:0 --set listen.http=127.0.0.1:0 >"$work/postroad.log" 2>&1) &
  pid=$!
  for _ in $(seq 200); do
    if [ -s "$work/data/ports.json" ]; then break; fi
    sleep 0.05
  done
  port=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["mqtt"])' "$work/data/ports.json")
  await_port "$port"
}

for name in "${order[@]}"; do
  for broker in mosquitto postroad; do
    "start_$broker"
    echo "== $name, $broker"
    # shellcheck disable=SC2086 # the options of a scenario are words
    taskset -c "$bench_cpu" "$bench" --duration "$seconds_each" ${scenarios[$name]} --port "$port" \
      --broker-pid "$pid" --json "$results/$name-$broker.json" || echo "exit code $?"
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    pid=
  done
done
