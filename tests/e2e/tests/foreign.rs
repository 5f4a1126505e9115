//! Clients that we did not write, against the real binary. Few and broad: each one proves that an ordinary
//! client works unchanged; the details of the protocol are tested without sockets in `session` and `broker`.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use postroad_e2e::daemon::Daemon;
use postroad_e2e::tools::{Subscriber, mosquitto_pub, mosquitto_pub_lines, mosquitto_sub, node, python};

/// The numbers of a file or of a `seq`.
fn lines(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("m{number}")).collect()
}

/// QoS 0, 1 and 2 from mosquitto_pub to mosquitto_sub, each protocol version, in order.
#[test]
fn mosquitto_every_qos_and_version() {
    let daemon = Daemon::start();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("plain/{version}/{qos}");
            let subscriber = Subscriber::start(daemon.mqtt(), &["-V", version, "-q", qos, "-t", &topic, "-C", "5"]);
            // One publisher: between those of several connections there is no order.
            let text = lines(5).join("\n") + "\n";
            mosquitto_pub_lines(daemon.mqtt(), &["-V", version, "-q", qos, "-t", &topic], &text);
            let expected: Vec<String> = lines(5).iter().map(|payload| format!("{topic} {payload}")).collect();
            assert_eq!(subscriber.messages(), expected, "{version} QoS {qos}");
        }
    }
}

/// `[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`: the last retained message greets a new subscriber; an empty one removes it.
#[test]
fn mosquitto_retained() {
    let daemon = Daemon::start();
    for payload in ["old", "new"] {
        mosquitto_pub(daemon.mqtt(), &["-r", "-q", "1", "-t", "kept/a", "-m", payload]);
    }
    mosquitto_pub(daemon.mqtt(), &["-r", "-q", "1", "-t", "kept/b", "-m", "gone"]);
    mosquitto_pub(daemon.mqtt(), &["-r", "-q", "1", "-t", "kept/b", "-n"]);
    mosquitto_pub(daemon.mqtt(), &["-r", "-q", "1", "-t", "kept/z", "-m", "last"]);
    let received = mosquitto_sub(daemon.mqtt(), &["-t", "kept/+", "-C", "2", "-F", "%r %t %p"]);
    let mut received: Vec<&str> = received.lines().collect();
    received.sort_unstable();
    assert_eq!(received, ["1 kept/a new", "1 kept/z last"]);
}

/// `[MQTT-3.1.2-8]`: the will of a client that vanishes without DISCONNECT is published.
#[test]
fn mosquitto_will() {
    let daemon = Daemon::start();
    let watcher = Subscriber::start(daemon.mqtt(), &["-q", "1", "-t", "will/#", "-C", "1"]);
    let will = ["--will-topic", "will/a", "--will-payload", "dead", "--will-qos", "1"];
    let arguments = [&["-t", "anything", "-C", "1"][..], &will].concat();
    drop(Subscriber::start(daemon.mqtt(), &arguments)); // killed, its socket closed by the kernel
    assert_eq!(watcher.messages(), ["will/a dead"]);
}

/// MQTT 5 properties reach the subscriber unchanged `[MQTT-3.3.2-17]`, `[MQTT-3.3.2-18]`, `[MQTT-3.3.2-20]`.
#[test]
fn mosquitto_v5_properties() {
    let daemon = Daemon::start();
    let retained = ["-V", "mqttv5", "-r", "-q", "1", "-t", "properties", "-m", "text"];
    let properties = [
        &["-D", "publish", "content-type", "text/plain"][..],
        &["-D", "publish", "response-topic", "answers/here"],
        &["-D", "publish", "correlation-data", "c0ffee"],
        &["-D", "publish", "payload-format-indicator", "1"],
        &["-D", "publish", "user-property", "colour", "green"],
        &["-D", "publish", "user-property", "colour", "blue"],
    ];
    let arguments = [&retained[..], &properties.concat()].concat();
    mosquitto_pub(daemon.mqtt(), &arguments);
    let format = "%C|%R|%D|%F|%P|%p";
    let received = mosquitto_sub(daemon.mqtt(), &["-V", "mqttv5", "-t", "properties", "-C", "1", "-F", format]);
    assert_eq!(received.trim_end(), "text/plain|answers/here|c0ffee|1|colour:green colour:blue|text");
}

/// REL-1: what is published while a persistent client is away waits for it, through a restart, once and in order.
#[test]
fn mosquitto_persistent_session() {
    let mut daemon = Daemon::start();
    let session = ["-i", "sleeper", "-c", "-q", "2", "-t", "queue/#"];
    mosquitto_sub(daemon.mqtt(), &[&session[..], &["-E"]].concat());
    for (number, payload) in lines(6).iter().enumerate() {
        // One level: the client hands QoS 2 on at PUBREL, so that levels overtake each other at its end.
        mosquitto_pub(daemon.mqtt(), &["-q", "2", "-t", "queue/a", "-m", payload]);
        if number == 2 && !daemon.is_foreign() {
            assert!(daemon.terminate().success(), "a graceful stop ends with 0");
            daemon.restart();
        }
    }
    let received = mosquitto_sub(daemon.mqtt(), &[&session[..], &["-C", "6"]].concat());
    assert_eq!(received.lines().collect::<Vec<_>>(), lines(6));
    mosquitto_pub(daemon.mqtt(), &["-q", "1", "-t", "queue/a", "-m", "after"]);
    let received = mosquitto_sub(daemon.mqtt(), &[&session[..], &["-C", "1"]].concat());
    assert_eq!(received.trim_end(), "after", "what was acknowledged does not come again");
}

/// paho-mqtt: 3.1.1 and 5, all QoS, wildcards, retained, request and response, shared subscription, take-over.
#[test]
fn paho_mqtt() {
    let daemon = Daemon::start();
    let output = python("paho_suite.py", daemon.mqtt());
    assert!(output.trim_end().ends_with("all passed"), "{output}");
}

/// MQTT.js: 3.1.1 and 5, all QoS, unsubscribe, reason codes, topic alias, take-over of a session.
#[test]
fn mqtt_js() {
    let daemon = Daemon::start();
    let output = node("mqttjs_suite.js", daemon.mqtt());
    assert!(output.trim_end().ends_with("all passed"), "{output}");
}
