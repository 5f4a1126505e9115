#!/usr/bin/env bash
# Postroad and its peers under the same load, in turn and interleaved, each alone on one core; beside the CPU of a message what the
# kernel takes for its bytes, where that can be said.
#
#   perf/compare.sh [--contenders "postroad-memory mosquitto …"] [scenario …]        default: all; pictures in perf/results/
#   perf/compare.sh --redraw [scenario …]       tables and pictures of what the last run left in target/perf-results
#
# SECONDS_EACH (8) is the time of each run, REPETITIONS (3) how often all of it is done. Peers: perf/peers.sh. A peer that loses what
# it must not is in the table with it, one that can't do a scenario in a line below; Postroad may do neither. MQTT 3.1.1, which all
# of them speak.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/brokers.sh"
seconds_each=${SECONDS_EACH:-8}
contenders=(postroad-memory postroad-fsync mosquitto rumqttd rabbitmq nats nats-fsync)
redraw=no
if [ "${1:-}" = --redraw ]; then
  redraw=yes
  shift
elif [ "${1:-}" = --contenders ]; then
  read -ra contenders <<<"$2"
  shift 2
fi
for contender in "${contenders[@]}"; do promise_of "$contender" >/dev/null; done

# Options of each scenario; a burst is the messages of one write, equal for all. Closed loops say what a message costs at the broker's
# best; `rated` is an open loop that all of them keep, `half` one at about half of what the slowest of those that matter can do (NATS).
declare -A scenarios=(
  [qos0-pair-b1]="pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 1"
  [qos0-pair-b32]="pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 32"
  [qos1-50pairs]="pairs --count 50 --qos 1 --payload 256 --inflight 100 --burst 10 --persistent"
  [qos1-50pairs-rated]="pairs --count 50 --qos 1 --payload 256 --rate 5000 --persistent --warmup 2"
  [qos1-50pairs-half]="pairs --count 50 --qos 1 --payload 256 --rate 10000 --persistent --warmup 2"
  [qos0-fanout1000-b1]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 1"
  [qos0-fanout1000-b8]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 8"
  [qos0-fanout1000-b32]="fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 32"
  [qos1-share10]="share --count 10 --members 10 --qos 1 --payload 256 --inflight 100 --burst 10 --persistent"
  [qos1-fanin]="fanin --count 50 --qos 1 --payload 256 --inflight 20 --burst 10 --persistent"
  [idle]="idle --count 10000 --duration 0"
)
order=(qos0-pair-b1 qos0-pair-b32 qos1-50pairs qos1-50pairs-rated qos1-50pairs-half qos0-fanout1000-b1 qos0-fanout1000-b8 qos0-fanout1000-b32 qos1-share10 qos1-fanin idle)
[ $# -eq 0 ] || order=("$@")
for name in "${order[@]}"; do
  [ -n "${scenarios[$name]:-}" ] || fail "no scenario $name; there are: ${!scenarios[*]}"
done

# What a contender has no promise for says nothing: only those that write are run twice over.
takes_part() {
  case $1:$2 in
    *-fsync:qos0* | *-fsync:idle | *-os:qos0*) return 1 ;;    # nothing of it is written
    nats*:*share* | rabbitmq:*share*) return 1 ;; # they have no shared subscriptions for MQTT 3.1.1
    *) return 0 ;;
  esac
}

# What the kernel takes for a delivered message, over the same number of sockets, by one call for each burst: SOCKETS BYTES BURST of
# what comes in and of what goes out, the acknowledgements too. A broker that gathers several bursts into one call takes less.
declare -A floors=(
  [qos0-pair-b1]="read 1 75 1, send 1 75 1"
  [qos0-pair-b32]="read 1 75 32, send 1 75 32"
  [qos1-50pairs]="read 50 270 10, send 50 4 10, send 50 270 10, read 50 4 10"
  [qos0-fanout1000-b1]="send 1000 75 1"
  [qos0-fanout1000-b8]="send 1000 75 8"
  [qos0-fanout1000-b32]="send 1000 75 32"
)

# floor NAME: microseconds, as they are now; nothing where there is none.
floor() {
  local direction sockets bytes burst sum=0 us
  [ -n "${floors[$1]:-}" ] || return 0
  while read -r direction sockets bytes burst; do
    rm -f "$work/floor.json"
    "$bench" loopback --sockets "$sockets" --bytes "$bytes" --burst "$burst" --seconds 1 --json "$work/floor.json" \
      --sender-cpu "$broker_cpu" --reader-cpu "$bench_cpu" >/dev/null
    us=$(figure "$work/floor.json" "${direction}_us_per_message")
    sum=$(awk -v a="$sum" -v b="$us" 'BEGIN { print a + b }')
  done < <(tr ',' '\n' <<<"${floors[$1]}")
  echo "$sum"
}

declare -A files floor_us failed
if [ $redraw = yes ]; then
  repetitions=0
  for name in "${order[@]}"; do
    for contender in "${contenders[@]}"; do
      takes_part "$contender" "$name" || continue
      files[$name]+=" $(echo "$results/compare-$name-$contender".*.json)"
    done
  done
fi
for repetition in $(seq "$repetitions"); do
  for name in "${order[@]}"; do
    floor_us[$name]+=" $(floor "$name")"
    for contender in "${contenders[@]}"; do
      takes_part "$contender" "$name" || continue
      measured_pid=''
      "start_$contender"
      # shellcheck disable=SC2086 # the options of a scenario are words
      case $contender in
        postroad-*) load "compare-$name-$contender.$repetition" --timeout 20 --duration "$seconds_each" ${scenarios[$name]} ;;
        *)
          may_fail=1 load "compare-$name-$contender.$repetition" --tolerate-loss --timeout 20 --duration "$seconds_each" ${scenarios[$name]}
          [ -s "$results/compare-$name-$contender.$repetition.json" ] || failed[$name]+=" $contender"
          ;;
      esac
      files[$name]+=" $results/compare-$name-$contender.$repetition.json"
      stop_broker
      ! declare -F "after_$contender" >/dev/null || "after_$contender"
    done
  done
done

# Medians, and what they are of the floor: costs NAME FLOORS FILE…; the bars into costs.tsv.
costs() {
  python3 - "$work/costs.tsv" "$@" <<'PYTHON'
import json, statistics, sys
out, name, floors, files = sys.argv[1], sys.argv[2], [float(text) for text in sys.argv[3].split()], sys.argv[4:]
floor = statistics.median(floors) if floors else None
costs = {}
for file in files:
    report = json.load(open(file))
    traffic, broker = report.get("traffic"), report.get("broker")
    if traffic and broker and broker["cpu_us_per_delivered"]:
        contender = file.split("/")[-1].removeprefix(f"compare-{name}-").rsplit(".", 2)[0]
        costs.setdefault(contender, []).append(broker["cpu_us_per_delivered"])
medians = sorted((statistics.median(values), contender) for contender, values in costs.items())
if floor:
    shares = ", ".join(f"{contender} {median / floor:.2f}" for median, contender in medians)
    print(f"The kernel takes {floor:.2f} µs for it by a call for each burst. In that: {shares}\n")
with open(out, "w") as bars:
    if floor:
        bars.write(f"kernel, a call for each burst\t{floor:.3f}\n")
    for median, contender in medians:
        bars.write(f"{contender}\t{median:.3f}\n")
PYTHON
}

pictures=perf/results
mkdir -p "$pictures"
columns=/broker/cpu_us_per_delivered=broker\ CPU\ µs\ per\ delivery,/traffic/received_per_second=received/s
columns+=,/traffic/acknowledge/p50_us=PUBACK\ p50\ µs,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs
columns+=,/traffic/end_to_end/p50_us=end\ to\ end\ p50\ µs,/traffic/end_to_end/p99_us=p99\ µs,/traffic/missing=missing
columns+=,/traffic/repeated=repeated,/traffic/out_of_order=out\ of\ order,/traffic/downgraded=at\ a\ lower\ QoS
columns+=,/traffic/acknowledged_with_error=refused,/connections/lost_after_connack=connections\ lost
for name in "${order[@]}"; do
  present=()
  for file in ${files[$name]:-}; do [ ! -s "$file" ] || present+=("$file"); done
  [ -z "${failed[$name]:-}" ] || echo "$name could not be run with:${failed[$name]}" | tee -a "$results/summary.md"
  [ ${#present[@]} -gt 0 ] || continue
  if [ "$name" = idle ]; then
    summarize "compare: $name" --columns "/broker/rss_per_connection=resident bytes per connection" "${present[@]}"
  else
    summarize "compare: $name" --columns "$columns" "${present[@]}"
    costs "$name" "${floor_us[$name]:-}" "${present[@]}" | tee -a "$results/summary.md"
    "$bench" plot bars "$work/costs.tsv" --out "$pictures/compare-$name.svg" --log-x \
      --title "$name: CPU of the broker for each delivered message" --x-label "µs (logarithmic)"
  fi
done
{
  echo "What an acknowledgement means:"
  for contender in "${contenders[@]}"; do echo "- $contender: $(promise_of "$contender")"; done
} | tee -a "$results/summary.md"
done_with_faults
