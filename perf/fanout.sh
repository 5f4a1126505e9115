#!/usr/bin/env bash
# Durable fan-out at QoS 1 to persistent sessions: bytes written to the log for each message, CPU for each delivery.
#
#   perf/fanout.sh [--sessions 1000]
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-10} sessions=1000
[ "${1:-}" != --sessions ] || sessions=$2

# Bytes, records and commits since the server's start.
log_totals() {
  metric postroad_log_written_bytes_total
  metric postroad_log_records_total
  metric postroad_log_commits_total
}

for repetition in $(seq "$repetitions"); do
  for payload in 64 256; do
    fanout=(fanout --count "$sessions" --qos 1 --payload "$payload" --persistent --v5)
    # A run of one message first: what the sessions themselves write is the same in both, and is taken away.
    start_postroad 1
    load fanout-one-message "${fanout[@]}" --messages 1 --inflight 1
    mapfile -t few < <(log_totals)
    stop_broker

    run=fanout-$payload.$repetition
    start_postroad 1
    load "$run" "${fanout[@]}" --rate 50 --duration "$seconds_each"
    mapfile -t many < <(log_totals)
    stop_broker
    awk -v bytes=$((many[0] - few[0])) -v records=$((many[1] - few[1])) -v commits=$((many[2] - few[2])) \
      -v messages=$(($(figure "$results/$run.json" traffic sent) - 1)) 'BEGIN {
      printf "{\"bytes_per_message\": %.1f, \"records_per_message\": %.2f, \"commits_per_message\": %.2f}\n",
        bytes / messages, records / messages, commits / messages }' >"$results/fanout-log-$payload.$repetition.json"
  done
done

columns=/broker/cpu_us_per_delivered=broker\ CPU\ µs\ per\ delivery,/traffic/received_per_second=received/s
columns+=,/traffic/acknowledge/p99_us=PUBACK\ p99\ µs,/traffic/send_lag/p99_us=generator\ lag\ p99\ µs
summarize "Durable fan-out to $sessions persistent sessions, by bytes of payload" --columns "$columns" \
  "$results"/fanout-{64,256}.*.json
columns=/bytes_per_message=log\ bytes\ per\ message,/records_per_message=records\ per\ message
columns+=,/commits_per_message=commits\ per\ message
table --columns "$columns" "$results"/fanout-log-{64,256}.*.json
done_with_faults
