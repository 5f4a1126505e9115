#!/usr/bin/env bash
# What monitoring costs: the share of the server's instructions that are in the lines which count (target: at most 1 %).
#
#   perf/counting.sh
#
# The whole server runs under callgrind: once idle, once under QoS 1 pairs in memory. Between the two lies what the load takes. Of that,
# the lines that add to a counter or fill a histogram are what a server without monitoring would not have; what is asked for
# once in a while (/metrics, $SYS) is no part of a message. Needs valgrind.
source "$(dirname "$0")/lib.sh"
command -v callgrind_annotate >/dev/null || fail "valgrind is missing: install the package valgrind"
# Lines as `self.counters.writes += 1;` or `log.figures.commit.observe(micros);`.
counting='(counters|stats|figures|inputs)(\.[a-z_0-9]+(\[[^]]*\])?)+ ([+-]=|= .*max\()|\.observe\(|BOUNDS_MICROS|self\.counts\[|sum_micros \+='

counted=$work/counted
printf '#!/bin/sh\nexec valgrind --tool=callgrind --callgrind-out-file="$CALLGRIND_OUT" "%s" "$@"\n' "$(realpath "$postroad")" >"$counted"
chmod +x "$counted"
postroad=$counted

# Starts it, does $2…, ends it; then the sums of all lines and of those that count are in $all and $some.
count() {
  export CALLGRIND_OUT=$work/$1.callgrind
  start_postroad 1 --set durability=memory --set http.shard_timeout=30s
  "${@:2}"
  stop_broker
  callgrind_annotate --auto=yes --show=Ir --show-percs=no --threshold=100 --context=0 "$CALLGRIND_OUT" >"$work/$1.lines" 2>/dev/null
  all=$(awk '/PROGRAM TOTALS/ { gsub(",", "", $1); print $1 }' "$work/$1.lines")
  some=$(grep -E "^ *[0-9,]+ +[^/]*($counting)" "$work/$1.lines" | awk '{ gsub(",", "", $1); sum += $1 } END { printf "%d", sum }') ||
    fail "no line counts: has $postroad no line tables?"
}

count idle sleep 3
idle_all=$all idle_some=$some
count load load counting.1 pairs --count 50 --qos 1 --payload 256 --inflight 100 --burst 10 --persistent --messages 100000
messages=$(figure "$results/counting.1.json" traffic received)
awk -v all=$((all - idle_all)) -v some=$((some - idle_some)) -v n="$messages" 'BEGIN {
  printf "{\"messages\": %d, \"instructions\": %.1f, \"counting\": %.1f, \"share_percent\": %.2f}\n", n, all / n, some / n, 100 * some / all }' \
  >"$results/counting-share.1.json"
grep -E "^ *[0-9,]+ +[^/]*($counting)" "$work/load.lines" | sort -k1,1 -t' ' -rn | head -n 20 >&2 || true
summarize "What counting costs" --columns "/messages=messages,/instructions=instructions each,/counting=of which count,/share_percent=%" \
  "$results/counting-share.1.json"
done_with_faults
