#!/usr/bin/env bash
# Runs fuzz targets one after the other and ends at the first finding, whose input is then in tests/fuzz/artifacts/.
#
#   tests/fuzz/run.sh [SECONDS [TARGET…]]       60 seconds for each of all targets, unless told otherwise
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
# cargo-fuzz passes flags that a stable compiler takes only so.
export RUSTC_BOOTSTRAP=1
if [ $# = 0 ]; then
  mapfile -t targets < <(cargo fuzz list --fuzz-dir .)
  set -- "${targets[@]}"
fi
for target in "$@"; do
  features=()
  [ "$target" != auth ] || features=(--features auth)
  corpora=("corpus/$target")
  [ ! -d "seeds/$target" ] || corpora+=("seeds/$target")
  mkdir -p "corpus/$target"
  echo "=== $target: $seconds s"
  cargo fuzz run --sanitizer "${FUZZ_SANITIZER:-none}" --fuzz-dir . "${features[@]}" "$target" "${corpora[@]}" -- -max_total_time="$seconds" -max_len=16384 \
    -timeout=20 -rss_limit_mb=2048 -print_final_stats=1
done
