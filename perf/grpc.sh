#!/usr/bin/env bash
# What publishing by gRPC takes: messages of 256 B to a subscriber that is away, durable, in one stream: in requests of 100 messages
# and of one each (target: 50,000 durable messages/s).
#
#   perf/grpc.sh [--messages 200000]
#
# The client (perf/src/bin/grpc.rs) has the generator's core; the shard and the control thread share the broker's. CPU is that of the
# whole server.
source "$(dirname "$0")/lib.sh"
read_sizes "$@"
[ $# -gt 0 ] || messages=200000
command -v mosquitto_sub >/dev/null || fail "mosquitto_sub is missing: install the package mosquitto-clients"
client=$(dirname "$bench")/postroad-grpc-bench
[ -x "$client" ] || fail "$client is missing: cargo build --release -p postroad-perf"

# run NAME BATCH
run() {
  local name=$1 batch=$2 cpu_before said
  cpu_before=$(http /metrics | awk '$1 == "process_cpu_seconds_total" { print $2 }')
  said=$(taskset -c "$bench_cpu" "$client" --address "http://127.0.0.1:$grpc_port" --messages "$messages" --batch "$batch") || said='0 1'
  http /metrics | awk -v said="$said" -v before="$cpu_before" '$1 == "process_cpu_seconds_total" {
    split(said, part, " "); n = part[1]
    printf "{\"published\": %d, \"per_second\": %.0f, \"cpu_us\": %.2f}\n", n, n / part[2], n ? 1e6 * ($2 - before) / n : 0 }' \
    >"$results/$name.json"
  [ "${said% *}" -eq "$messages" ] || { echo "$name: ${said% *} of $messages published" >&2 && faults=$((faults + 1)); }
}

files=()
for repetition in $(seq "$repetitions"); do
  start_postroad 1 --set listen.grpc=127.0.0.1:0 --set durability=fsync --set queue.messages_max=100000000 --set queue.bytes_max=1024GiB
  grpc_port=$(port_of grpc)
  mosquitto_sub -p "$port" -i away -c -q 1 -t 'api/#' -E
  run "grpc-stream.$repetition" 100
  run "grpc-single.$repetition" 1
  files+=("$results/grpc-stream.$repetition.json" "$results/grpc-single.$repetition.json")
  stop_broker
done
summarize "Publishing by gRPC, $messages messages of 256 B" --columns "/published=published,/per_second=messages/s,/cpu_us=server CPU µs" "${files[@]}"
done_with_faults
