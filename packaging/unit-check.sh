#!/usr/bin/env bash
# Boots a real systemd in a container of this machine's own system (an overlay, so nothing is changed here) and runs the unit
# in it as the operator guide installs it: start, clients, reload, a hang that the watchdog ends, stop.
#
#   sudo packaging/unit-check.sh BINARY
#
# Needs root, Debian, and the packages systemd, systemd-container and mosquitto-clients. Takes about a minute: the unit's
# watchdog waits for half of one.
set -euo pipefail

binary=$(realpath "${1:?usage: unit-check.sh BINARY}")
packaging=$(realpath "$(dirname "$0")")
for tool in systemd-nspawn mosquitto_pub mosquitto_sub; do
  command -v "$tool" >/dev/null || { echo "$tool is missing; the head of this file names the packages" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "booting a container needs root" >&2; exit 1; }

work=$(mktemp -d -p /dev/shm postroad-unit-XXXXXX)
cleanup() {
  mountpoint -q "$work/root" && umount "$work/root"
  umount "$work"
  rmdir "$work"
}
# The upper layer of an overlay must not lie in the lower one.
mount -t tmpfs none "$work"
trap cleanup EXIT
mkdir "$work"/{upper,work,root,check}
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
cp "$binary" "$work/check/postroad"
cp "$packaging"/postroad.{service,sysusers,toml} "$work/check/"

cat >"$work/root/etc/systemd/system/check.service" <<'UNIT'
[Unit]
Description=Check of the unit of Postroad
After=basic.target
[Service]
Type=oneshot
StandardOutput=file:/check/result
StandardError=inherit
ExecStart=/bin/bash /check/check
ExecStopPost=/bin/systemctl poweroff --force
UNIT

cat >"$work/check/check" <<'CHECK'
set -eu
say() { echo "--- $*"; }
property() { systemctl show postroad -p "$1" --value; }
trap 'say "failed at line $LINENO"; journalctl -u postroad --no-pager | tail -n 30' ERR
client() { local tool=$1; shift; "mosquitto_$tool" -h 127.0.0.1 -q 1 -t t "$@"; }

say "install, as the operator guide does"
install -m 755 /check/postroad /usr/local/bin/
install -m 644 /check/postroad.service /etc/systemd/system/
install -D -m 644 /check/postroad.sysusers /etc/sysusers.d/postroad.conf && systemd-sysusers
install -D -m 644 /check/postroad.toml /etc/postroad/postroad.toml
systemctl daemon-reload

say "start: it returns when clients can connect"
systemctl start postroad
client sub -c -i device -E
client pub -m before
systemctl reload postroad
[ "$(client sub -c -i device -C 1 -W 60)" = before ]
client pub -m kept

pid=$(property MainPID)
say "confined: $(grep -hE '^(NoNewPrivs|Seccomp|CapEff):' "/proc/$pid/status" | tr -s '\n\t' ' ')"
grep -q '^NoNewPrivs:[[:space:]]*1' "/proc/$pid/status" && grep -q '^Seccomp:[[:space:]]*2' "/proc/$pid/status"

say "a hang: the watchdog ends it, and it starts anew"
kill -STOP "$pid"
tries=0
until [ "$(property NRestarts)" = 1 ] && [ "$(systemctl is-active postroad)" = active ]; do
  tries=$((tries + 1))
  [ $tries -lt 240 ]
  sleep 0.5
done
journalctl -u postroad --no-pager | grep -i 'watchdog timeout'
[ "$(client sub -c -i device -C 1 -W 60)" = kept ]

say "stop: a drain, and a clean end"
systemctl stop postroad
[ "$(property Result)" = success ] && [ "$(property ExecMainStatus)" = 0 ]
say "passed"
CHECK

SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 300 systemd-nspawn --quiet -D "$work/root" --machine=postroad-unit-check \
  --register=no --keep-unit --private-network --capability=all --bind="$work/check:/check" \
  --system-call-filter="io_uring_setup io_uring_enter io_uring_register" \
  --boot systemd.unit=check.service >"$work/console" 2>&1 </dev/null || true
cat "$work/check/result"
grep -q '^--- passed' "$work/check/result" || { tail -n 20 "$work/console" >&2; exit 1; }
