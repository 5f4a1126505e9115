#!/usr/bin/env bash
# Durable QoS 1 for minutes: 50 publishers to 50 persistent subscribers that acknowledge, 256 B, `fsync`, one shard, open
# loop. Beside it an append with its fdatasync is measured on the same disk, and the use of the disk is watched. Before it
# the same load runs for a while without a log (`memory`): what its p99 is, the machine and the generator take.
#
#   perf/durable.sh [--minutes 10] [--rate 100000] [--burst 10] [--search]
#
# --search first looks for the highest rate, in steps of 25,000/s from --rate on, that broker and generator keep.
source "$(dirname "$0")/lib.sh"
minutes=10 rate=100000 burst=10 search=no
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2 && shift 2 ;;
    --rate) rate=$2 && shift 2 ;;
    --burst) burst=$2 && shift 2 ;;
    --search) search=yes && shift ;;
    *) fail "unknown option $1; see the head of $0" ;;
  esac
done
seconds=$((minutes * 60))
pairs=(pairs --count 50 --qos 1 --payload 256 --burst "$burst" --v5 --persistent)

# Whether this rate is kept: messages leave at most 5 ms late at p99, and nothing is refused or lost. They leave late if the
# generator's core is full, and if the broker is: then each publisher's window is.
keeps() {
  local before=$faults
  start_postroad 1
  load durable-search "${pairs[@]}" --rate "$1" --duration 10 --warmup 3
  stop_broker
  local lag_us
  lag_us=$(figure "$results/durable-search.json" traffic send_lag p99_us)
  [ "$faults" -eq "$before" ] && [ "${lag_us%.*}" -le 5000 ]
}

# Seconds and megabytes of the data directory, every 10 s.
watch_disk() {
  local begin=$SECONDS
  trap 'kill $! 2>/dev/null; exit 0' TERM
  while sleep 10 & wait $!; do
    # A segment or table may go away while du looks.
    echo "$((SECONDS - begin)) $({ du -sm "$work/data" 2>/dev/null || true; } | cut -f1)"
  done
}

if [ $search = yes ]; then
  while keeps $((rate + 25000)); do rate=$((rate + 25000)); done
  faults=0 # one step too far is how the search ends
  echo "highest rate that is kept: $rate/s"
fi

echo "== the disk alone"
taskset -c "$bench_cpu" "$bench" sync-probe --dir "$work" --seconds 5 --json "$results/durable-disk-alone.1.json"

echo "== the machine alone, both cores busy"
taskset -c "$bench_cpu" "$bench" stalls --seconds 20 >/dev/null &
others+=($!)
taskset -c "$broker_cpu" "$bench" stalls --seconds 20 --json "$results/durable-stalls.1.json"
wait "${others[@]}"
others=()

start_postroad 1 --set durability=memory
load durable-no-log.1 "${pairs[@]}" --rate "$rate" --duration $((seconds < 120 ? seconds : 120)) --sync-probe "$work"
stop_broker

start_postroad 1
declare -A before
counted=(postroad_messages_published_total postroad_log_records_total postroad_log_commits_total postroad_log_written_bytes_total)
for name in "${counted[@]}"; do before[$name]=$(metric "$name"); done
watch_disk >"$work/disk" &
others+=($!)
load durable.1 "${pairs[@]}" --rate "$rate" --duration "$seconds" --sync-probe "$work"
kill "${others[@]}"
wait "${others[@]}" || true
others=()
declare -A grown
for name in "${counted[@]}"; do grown[$name]=$(($(metric "$name") - before[$name])); done
sent=$(figure "$results/durable.1.json" traffic sent)
records=${grown[postroad_log_records_total]}

# Flat: from minute 2 on (of a shorter run, from its half on) no more than at that time.
from=$((seconds > 240 ? 120 : seconds / 2))
read -r disk_then disk_most <<<"$(awk -v from="$from" '
  $1 >= from { if (!then) then = $2; if ($2 > most) most = $2 } END { print then + 0, most + 0 }' "$work/disk")"
cat >"$results/durable-checks.1.json" <<JSON
{"rate": $rate, "sent": $sent, "published_metric": ${grown[postroad_messages_published_total]}, "log_records": $records,
 "log_records_but_two_for_each": $((records - 2 * sent)), "log_commits": ${grown[postroad_log_commits_total]},
 "log_bytes_per_message": $((grown[postroad_log_written_bytes_total] / (sent > 0 ? sent : 1))),
 "disk_mb_then": $disk_then, "disk_mb_most_after": $disk_most}
JSON
stop_broker

# A publication and a settlement each, and what sessions and retirement add: anything less is a message not in the log.
if [ "${grown[postroad_messages_published_total]}" -ne "$sent" ] || [ "$records" -lt $((2 * sent)) ]; then
  faults=$((faults + 1)) && echo "the log counts other messages than were published: $(cat "$results/durable-checks.1.json")" >&2
fi
if [ "$(figure "$results/durable.1.json" traffic second_min_acknowledged)" -eq 0 ]; then
  faults=$((faults + 1)) && echo "a second went by without an acknowledgement" >&2
fi
columns=/traffic/sent=sent,/traffic/acknowledged=acknowledged,/traffic/received=received,/traffic/missing=missing
columns+=,/traffic/second_min_acknowledged=worst\ second,/traffic/acknowledge/p50_us=PUBACK\ p50\ µs
columns+=,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs,/traffic/acknowledge/max_us=PUBACK\ max\ µs
columns+=,/sync/probe/append/p50_us=append\ +\ fdatasync\ p50\ µs,/sync/probe/append/p99_us=p99\ µs
columns+=,/sync/probe/append_from_due/p99_us=from\ when\ due\ p99\ µs
columns+=,/sync/p99_to_p50=PUBACK\ p99\ in\ its\ p50,/sync/p99_to_p99=in\ its\ p99,/sync/p99_to_p99_from_due=in\ that\ from\ when\ due
columns+=,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs,/broker/cpu_us_per_delivered=broker\ CPU\ µs\ per\ delivery
summarize "Durable load, $minutes minutes at $rate/s" --columns "$columns" "$results/durable-no-log.1.json" "$results/durable.1.json"
columns=/published_metric=messages\ taken\ in,/log_records=records,/log_records_but_two_for_each=but\ two\ for\ each
columns+=,/log_commits=commits,/log_bytes_per_message=log\ bytes\ per\ message
columns+=,/disk_mb_then="disk MB at $from s",/disk_mb_most_after=disk\ MB\ at\ most\ after
table --columns "$columns" "$results/durable-checks.1.json"
table --columns "/append/p50_us=append + fdatasync alone p50 µs,/append/p99_us=p99 µs,/append/max_us=max µs,/direct=O_DIRECT" \
  "$results/durable-disk-alone.1.json"
table --columns "/gaps=gaps of 1 ms and more on the core of the broker,/percent=percent of the time,/max_us=longest µs" \
  "$results/durable-stalls.1.json"
done_with_faults
