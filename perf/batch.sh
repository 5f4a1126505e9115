#!/usr/bin/env bash
# The log beside the bare disk at the same batch: durable QoS 1 pairs as fast as they go with so many under way, then appends of as
# many bytes as one commit had, each with its fdatasync, one after the other and nothing else (target: at least half of their rate).
# The more is under way, the larger a commit, and the more the shard's core is the limit instead of the disk.
#
#   perf/batch.sh
#
# SECONDS_EACH (8) is the time of each.
source "$(dirname "$0")/lib.sh"
seconds_each=${SECONDS_EACH:-8}

files=()
for case in "5 5" "20 20" "200 20"; do
  for repetition in $(seq "$repetitions"); do
    read -r inflight burst <<<"$case"
    start_postroad 1 --set durability=fsync
    load "batch-load-$((50 * inflight)).$repetition" pairs --count 50 --qos 1 --payload 256 --inflight "$inflight" --burst "$burst" --persistent --duration "$seconds_each"
    commits=$(metric postroad_log_commits_total) bytes=$(metric postroad_log_written_bytes_total)
    stop_broker
    each=$(((bytes / commits + 4095) / 4096 * 4096)) # appends are of whole pages
    taskset -c "$broker_cpu" "$bench" sync-probe --dir "$work" --bytes "$each" --seconds "$seconds_each" --json "$work/bare.json"
    file=$results/batch-$((50 * inflight))-under-way.$repetition.json
    python3 - "$results/batch-load-$((50 * inflight)).$repetition.json" "$work/bare.json" "$commits" "$each" "$seconds_each" >"$file" <<'END'
import json, sys
load, bare = (json.load(open(name)) for name in sys.argv[1:3])
commits, each, seconds = (float(word) for word in sys.argv[3:])
messages = load["traffic"]["acknowledged"]
per_commit = messages / commits
bare_rate = bare["append"]["count"] / seconds * per_commit
rate = load["traffic"]["received_per_second"]
print(json.dumps({"messages_per_commit": per_commit, "commit_bytes": each, "messages_per_second": rate,
                  "bare_messages_per_second": bare_rate, "share": rate / bare_rate}))
END
    files+=("$file")
  done
done
summarize "The log beside the bare disk" --columns "/messages_per_commit=messages per commit,/commit_bytes=bytes of a commit,/messages_per_second=messages/s,/bare_messages_per_second=bare appends × messages per commit,/share=share" \
  "${files[@]}"
done_with_faults
