#!/usr/bin/env bash
# The floors on this machine: what the kernel takes for the bytes alone, what a load costs the generator, what a disk takes for
# each commit. Each figure of RESULTS.md stands beside one of these.
#
#   perf/limits.sh
#
# SECONDS_EACH (3) is the time of each.
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-3}
# A PUBLISH of 64 B to `bench/0`, and of 256 B with a packet id, on the wire.
small=75 large=270

loopback=()
for case in "1 $small 1" "1 $small 8" "1 $small 32" "1000 $small 1" "1000 $small 8" "1000 $small 32" "50 $large 1" "50 $large 10" "50 $large 20"; do
  read -r sockets bytes burst <<<"$case"
  file=$results/limits-loopback-$sockets-sockets-$bytes-bytes-b$burst.1.json
  "$bench" loopback --sockets "$sockets" --bytes "$bytes" --burst "$burst" --seconds "$seconds_each" \
    --sender-cpu "$broker_cpu" --reader-cpu "$bench_cpu" --json "$file"
  loopback+=("$file")
done
summarize "limits: the loopback" --columns "/send_us_per_message=send µs,/send_us_per_write=send µs per write,/read_us_per_message=read µs,/messages_per_second=1/s" "${loopback[@]}"

port=18840
taskset -c "$broker_cpu" "$bench" null-server --port $port &
others+=($!)
broker_pid=$!
await port_answers 10 "$broker_pid"
null=()
for case in "qos0-b1 pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 1" \
  "qos0-b32 pairs --count 1 --qos 0 --payload 64 --inflight 2000 --burst 32" \
  "qos1-rated pairs --count 50 --qos 1 --payload 256 --rate 100000 --burst 10 --v5" \
  "qos1-closed pairs --count 50 --qos 1 --payload 256 --inflight 200 --burst 20 --v5" \
  "fanout-b8 fanout --count 1000 --qos 0 --payload 64 --inflight 100 --burst 8"; do
  read -ra words <<<"$case"
  load "limits-null-${words[0]}.1" --duration "$seconds_each" "${words[@]:1}"
  null+=("$results/limits-null-${words[0]}.1.json")
done
broker_pid=''
kill "${others[@]}" && wait "${others[@]}" 2>/dev/null || true
others=()
summarize "limits: a server that does nothing" --columns "/traffic/generator_cpu_us=generator CPU µs per message sent or received,/broker/cpu_us_per_delivered=server CPU µs per delivery,/traffic/received_per_second=received/s" "${null[@]}"

disk=()
for bytes in 4096 16384 65536 262144; do
  file=$results/limits-disk-$bytes-bytes.1.json
  taskset -c "$broker_cpu" "$bench" sync-probe --dir "$work" --bytes "$bytes" --seconds "$seconds_each" --json "$file"
  disk+=("$file")
done
summarize "limits: append and fdatasync, one after the other" --columns "/append/p50_us=p50 µs,/append/p99_us=p99 µs,/sync/p50_us=fdatasync alone p50 µs,/append/count=appends" "${disk[@]}"
done_with_faults
