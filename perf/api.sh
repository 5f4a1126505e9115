#!/usr/bin/env bash
# What publishing through the API takes: messages of 256 B to a subscriber that is away, durable, as one stream of lines and as requests
# of 500 messages each (target: 50,000 durable messages/s in a stream).
#
#   perf/api.sh [--messages 200000]
#
# curl has the generator's core; the shard and the control thread share the broker's. CPU is that of the whole server.
source "$(dirname "$0")/lib.sh"
read_sizes "$@"
[ $# -gt 0 ] || messages=200000
command -v curl >/dev/null || fail "curl is missing: install the package curl"
command -v mosquitto_sub >/dev/null || fail "mosquitto_sub is missing: install the package mosquitto-clients"

python3 - "$messages" "$work" <<'END'
import json, sys
count, work = int(sys.argv[1]), sys.argv[2]
line = json.dumps({"topic": "api/x", "payload": "p" * 256})
with open(f"{work}/lines", "w") as out:
    out.writelines(line + "\n" for _ in range(count))
with open(f"{work}/list", "w") as out:
    out.write("[" + ",".join([line] * 500) + "]")
END

# run NAME COMMAND…: the command prints what was published, one "id" each.
run() {
  local name=$1 cpu_before begin end published
  shift
  cpu_before=$(http /metrics | awk '$1 == "process_cpu_seconds_total" { print $2 }')
  begin=$(date +%s.%N)
  published=$(taskset -c "$bench_cpu" "$@" | grep -o '"id":"' | wc -l)
  end=$(date +%s.%N)
  http /metrics | awk -v name="$name" -v n="$published" -v begin="$begin" -v end="$end" -v before="$cpu_before" \
    '$1 == "process_cpu_seconds_total" { printf "{\"published\": %d, \"per_second\": %.0f, \"cpu_us\": %.2f}\n", n, n / (end - begin), 1e6 * ($2 - before) / n }' \
    >"$results/$name.json"
  [ "$published" -eq "$messages" ] || { echo "$name: $published of $messages published" >&2 && faults=$((faults + 1)); }
}

# The list again and again over one connection.
lists() {
  local url=$1 urls=()
  for _ in $(seq $((messages / 500))); do urls+=(--next -sS -H 'Content-Type: application/json' --data-binary "@$work/list" "$url"); done
  curl "${urls[@]:1}"
}
export -f lists
export work messages

files=()
for repetition in $(seq "$repetitions"); do
  start_postroad 1 --set durability=fsync --set queue.messages_max=100000000 --set queue.bytes_max=1024GiB
  mosquitto_sub -p "$port" -i away -c -q 1 -t 'api/#' -E
  url=http://127.0.0.1:$http_port/v1/messages
  run "api-stream.$repetition" curl -sS -X POST -H 'Content-Type: application/x-ndjson' -T "$work/lines" "$url"
  run "api-lists.$repetition" bash -c 'lists "$1"' lists "$url"
  files+=("$results/api-stream.$repetition.json" "$results/api-lists.$repetition.json")
  stop_broker
done
summarize "Publishing through the API, $messages messages of 256 B" --columns "/published=published,/per_second=messages/s,/cpu_us=server CPU µs" "${files[@]}"
done_with_faults
