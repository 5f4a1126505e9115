#!/usr/bin/env bash
# Stored messages go to clients that come back: how fast beside what the same clients take live (target: at least half), and
# what others feel of it meanwhile (target: their p99 less than doubled).
#
#   perf/drain.sh [--messages 1000000] [--sessions 1000]
#
# Those that are watched have four times as many messages drained beside them, so that the drain lasts longer than they are
# watched; if not, that is a fault. The clients that drain share the generator's core with them, at the lowest priority; the
# generator's own lag is shown beside the figures that it would explain.
source "$(dirname "$0")/lib.sh"
read_sizes "$@"
stored=(offline --count "$sessions" --qos 1 --payload 256 --v5)
# What waits leaves memory within log.young_age.
fill() {
  load "drain-fill.$repetition" "${stored[@]}" --messages "$1" --inflight 100 --burst 50 --phase fill
  sleep 40
}
watched=(pairs --count 10 --qos 1 --payload 256 --rate 2000 --v5 --persistent --warmup 1 --client-prefix watched)

files=() others_files=() beside=()
for repetition in $(seq "$repetitions"); do
  start_postroad 1
  load "drain-live.$repetition" pairs --count "$sessions" --qos 1 --payload 256 --inflight 100 --burst 50 --v5 --persistent --messages "$messages" --client-prefix live
  fill "$messages"
  load "drain-stored.$repetition" "${stored[@]}" --messages "$messages" --phase drain
  files+=("$results/drain-live.$repetition.json" "$results/drain-stored.$repetition.json")
  fill $((4 * messages))
  load "drain-alone.$repetition" "${watched[@]}" --duration 8
  beside+=("$results/drain-beside.$repetition.json")
  rm -f "$results/drain-beside.$repetition.json"
  nice -n 19 taskset -c "$bench_cpu" "$bench" "${stored[@]}" --messages $((4 * messages)) --phase drain --port "$port" --json "$results/drain-beside.$repetition.json" >/dev/null &
  others+=($!)
  load "drain-watched.$repetition" "${watched[@]}" --duration 8
  kill -0 "${others[0]}" 2>/dev/null || { echo "the drain ended before the watch" >&2 && faults=$((faults + 1)); }
  wait "${others[@]}" || faults=$((faults + 1))
  others=()
  others_files+=("$results/drain-alone.$repetition.json" "$results/drain-watched.$repetition.json")
  stop_broker
done
columns=/traffic/received_per_second=received/s,/traffic/missing=missing,/traffic/repeated=repeated,/broker/cpu_us_per_delivered=broker\ CPU\ µs
summarize "Live, and $messages stored messages of $sessions sessions" --against live --columns "$columns" "${files[@]}"
columns=/traffic/acknowledge/p99_us=PUBACK\ p99\ µs,/traffic/acknowledge/p50_us=PUBACK\ p50\ µs,/traffic/end_to_end/p99_us=end\ to\ end\ p99\ µs
columns+=,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs,/traffic/missing=missing
summarize "Others during the drain" --against alone --columns "$columns" "${others_files[@]}"
columns=/traffic/received=received,/traffic/received_per_second=drained/s
table --columns "$columns" "${beside[@]}"
done_with_faults
