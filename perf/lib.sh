# What the scripts of this folder share; sourced by them, not run.
#
# Binaries: POSTROAD_BIN, POSTROAD_BENCH, MOSQUITTO_BIN; otherwise release builds and mosquitto of the PATH.
# BROKER_CPU and BENCH_CPU are the cores of the broker and of the generator, REPETITIONS the number of runs of each kind.
# Each script ends with 1 if a run found a fault: something lost, refused or out of order that must not be.
# shellcheck shell=bash
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
postroad=${POSTROAD_BIN:-$target/release/postroad}
bench=${POSTROAD_BENCH:-$target/release/postroad-bench}
mosquitto=${MOSQUITTO_BIN:-mosquitto}
broker_cpu=${BROKER_CPU:-0} bench_cpu=${BENCH_CPU:-1}
# shellcheck disable=SC2034 # the scripts use it
repetitions=${REPETITIONS:-3}
load_before=$(cut -d' ' -f1 /proc/loadavg)
results=target/perf-results
mkdir -p "$results"
work=$(mktemp -d "$PWD/target/perf-work.XXXXXX") # data of brokers too: on the disk of the build, which is no tmpfs
broker_pid='' port='' http_port='' faults=0
others=() # processes beside the broker that are to be ended

finish() {
  local pid
  [ ${#others[@]} -eq 0 ] || kill "${others[@]}" 2>/dev/null || true
  [ -z "$broker_pid" ] || kill -9 "$broker_pid" ${measured_pid:-} 2>/dev/null || true
  for pid in "${others[@]}" $broker_pid; do
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
  echo "$*" >&2
  exit 2
}

# Reads --messages and --sessions into $messages and $sessions.
read_sizes() {
  messages=1000000 sessions=1000
  while [ $# -gt 0 ]; do
    case $1 in
      --messages) messages=$2 && shift 2 ;;
      --sessions) sessions=$2 && shift 2 ;;
      *) fail "unknown option $1; see the head of $0" ;;
    esac
  done
}

for binary in "$postroad" "$bench"; do
  [ -x "$binary" ] || fail "$binary is missing: cargo build --release -p postroad -p postroad-perf"
done

# Where figures come from: they mean nothing without it.
machine() {
  local commit dirty=''
  commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
  [ -z "$(git status --porcelain -- . ':!perf/results' ':!perf/RESULTS.md' 2>/dev/null)" ] || dirty=' and changes'
  echo "$(date -u +%F), commit $commit$dirty; $(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1))," \
    "$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r);" \
    "load average before $load_before; broker on core $broker_cpu, generator on core $bench_cpu"
}

# Fails with the last words of the brokers.
give_up() {
  tail -n 5 "$work"/*.log >&2 || true
  fail "$1"
}

# Does $1 until it succeeds, at most $2 seconds, while process $3 lives; looks every 10 ms.
await() {
  local what=$1 deadline=$((SECONDS + $2)) pid=$3
  until $what; do
    kill -0 "$pid" 2>/dev/null || give_up "process $pid has ended"
    [ $SECONDS -lt $deadline ] || give_up "$what did not succeed in $2 s"
    sleep 0.01
  done
}

port_answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null
}

# GET of a page of the broker's HTTP listener: head and body.
http() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$http_port" || exit 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
    cat <&3
  ) 2>/dev/null
}

is_ready() {
  http /ready | head -n 1 | grep -q ' 200 '
}

# Sum of a metric over shards.
metric() {
  http /metrics | awk -v name="$1" '$1 == name || index($1, name "{") == 1 { sum += $2 } END { printf "%.0f\n", sum }'
}

ports_are_known() {
  [ -s "$work/data/ports.json" ]
}

port_of() {
  sed -n "s/.*\"$1\": *\\([0-9]*\\).*/\\1/p" "$work/data/ports.json"
}

# Starts Postroad on the data that is there, on cores $1, with these options, and waits until it is ready.
start_postroad_on() {
  local cpus=$1
  shift
  rm -f "$work/data/ports.json" # a kill leaves a stale one
  (ulimit -n "$(ulimit -Hn)" && exec taskset -c "$cpus" "$postroad" serve --data "$work/data" \
    --set listen.mqtt=127.0.0.1:0 --set listen.http=127.0.0.1:0 "$@" >>"$work/postroad.log" 2>&1) &
  broker_pid=$!
  await ports_are_known 60 "$broker_pid"
  port=$(port_of mqtt) http_port=$(port_of http)
  await is_ready 60 "$broker_pid"
}

# The same on the broker's core, with $1 shards.
start_postroad() {
  start_postroad_on "$broker_cpu" --set shards="$1" "${@:2}"
}

start_mosquitto() {
  command -v "$mosquitto" >/dev/null || fail "mosquitto is missing: install it or set MOSQUITTO_BIN"
  port=${MOSQUITTO_PORT:-18830}
  # No limits that would drop what Postroad delivers; persistence off: its periodic dump is no durability.
  printf '%s\n' "listener $port 127.0.0.1" "allow_anonymous true" "max_queued_messages 0" \
    "max_inflight_messages 1024" "persistence false" >"$work/mosquitto.conf"
  (ulimit -n "$(ulimit -Hn)" && exec taskset -c "$broker_cpu" "$mosquitto" -c "$work/mosquitto.conf" \
    >"$work/mosquitto.log" 2>&1) &
  broker_pid=$!
  await port_answers 10 "$broker_pid"
}

end_broker() {
  kill "-$1" "$broker_pid" || echo "the broker had ended by itself" >&2
  wait "$broker_pid" 2>/dev/null || true
  broker_pid=''
}

# Ends the broker as an operator does, and throws its data away.
stop_broker() {
  end_broker TERM
  rm -rf "$work/data"
}

# Ends it as a crash does; the data stays.
kill_broker() {
  end_broker KILL
}

# Runs the generator against the broker: results as $1.json, the rest are its options. $measured_pid is the process whose CPU and
# memory count, if it is not the one that was started; with $may_fail a load that can't be made is no end.
load() {
  local name=$1 code=0
  shift
  echo "== $name"
  rm -f "$results/$name.json"
  taskset -c "$bench_cpu" "$bench" "$@" --port "$port" --broker-pid "${measured_pid:-$broker_pid}" --json "$results/$name.json" || code=$?
  case $code in
    0) ;;
    1) faults=$((faults + 1)) && echo "$name has faults" >&2 ;;
    *) [ -n "${may_fail:-}" ] || fail "$name could not be run" ;;
  esac
}

# One figure of a JSON file: figure FILE KEY…
figure() {
  python3 -c 'import functools, json, sys; print(functools.reduce(lambda at, key: at[key], sys.argv[2:], json.load(open(sys.argv[1]))))' "$@" 2>/dev/null
}

# A table of these results, on the terminal and at the end of summary.md: table OPTION… FILE…
table() {
  { "$bench" summarize "$@" && echo; } | tee -a "$results/summary.md"
}

# The same under a heading, which says where it was measured: summarize TITLE OPTION… FILE…
summarize() {
  printf '\n### %s\n%s\n\n' "$1" "$(machine)" | tee -a "$results/summary.md"
  table "${@:2}"
}

done_with_faults() {
  [ "$faults" -eq 0 ] || echo "$faults runs had faults" >&2
  [ "$faults" -eq 0 ]
}
