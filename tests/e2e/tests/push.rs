//! Directed pushes, with mosquitto's clients: what is pushed to a device waits for the device, not for its session
//! (DESIGN 5), [REL-1].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use postroad_e2e::daemon::{Daemon, binary};
use postroad_e2e::tools::{Subscriber, mosquitto, mosquitto_pub};
use tempfile::TempDir;

/// Backends push, everybody takes what is its own.
const RULES: &str = r#"
[[rule]]
principal = "user:back-end"
action = "*"
effect = "allow"

[[rule]]
principal = "*"
action = "connect"
effect = "allow"

[[rule]]
principal = "*"
action = "subscribe"
topic = "news/#"
effect = "allow"
"#;

struct Fleet {
    daemon: Daemon,
    back_end: String,
    car: String,
    /// Holds `auth.file` and `acl.file`.
    _folder: TempDir,
}

/// A daemon whose `auth.file` knows a back end, a user `car` and two clients that never came.
fn fleet() -> Fleet {
    let folder = tempfile::tempdir().unwrap();
    let [auth, acl] = ["auth.toml", "acl.toml"].map(|name| folder.path().join(name));
    let [back_end, car] = ["back-end", "car"].map(|user| token(&auth, user));
    let clients = "[[client]]\nid = \"car-7\"\nuser = \"car\"\ngroups = [\"trucks\"]\n[[client]]\nid = \"car-8\"\nuser = \"car\"\n";
    let users = fs::read_to_string(&auth).unwrap();
    fs::write(&auth, users + clients).unwrap();
    fs::write(&acl, RULES).unwrap();
    let daemon =
        Daemon::start_with(&[&format!("auth.file={}", auth.display()), &format!("acl.file={}", acl.display())]);
    Fleet { daemon, back_end, car, _folder: folder }
}

fn token(file: &Path, user: &str) -> String {
    let output = Command::new(binary()).args(["passwd", "--file"]).arg(file).args(["--token", user]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|word| word.starts_with("prt_")).unwrap().to_owned()
}

impl Fleet {
    fn push(&self, topic: &str, payload: &str) {
        let login = ["-u", "back-end", "-P", &self.back_end];
        mosquitto_pub(self.daemon.mqtt(), &[&login[..], &["-q", "1", "-t", topic, "-m", payload]].concat());
    }

    /// A device that begins a new session each time, and takes so many messages.
    ///
    /// One more ends it, which is pushed once it has its SUBACK: a client that closes with a packet unread resets the
    /// connection, and the kernel throws away the acknowledgements that the server has not read.
    fn take(&self, client: &str, count: usize) -> Vec<String> {
        let all = (count + 1).to_string();
        let options = ["-u", "car", "-P", &self.car, "-i", client, "-t", "news/none", "-q", "1", "-C", &all];
        let device = Subscriber::start(self.daemon.mqtt(), &options);
        self.push(&format!("$client/{client}/end"), "of this test");
        let mut messages = device.messages();
        assert_eq!(messages.pop().as_deref(), Some("end of this test"));
        messages
    }
}

/// Three ways to address a device that never connected; a kill -9 and a clean start later all is there, and comes once.
#[test]
fn pushes_wait_for_a_device_that_never_came() {
    let mut fleet = fleet();
    fleet.push("$client/car-7/cmd/lock", "now");
    fleet.push("$user/car/hello", "both");
    fleet.push("$group/trucks/route", "A7");
    fleet.daemon.kill();
    fleet.daemon.restart();
    assert_eq!(fleet.take("car-7", 3), ["cmd/lock now", "hello both", "route A7"]);
    assert_eq!(fleet.take("car-8", 1), ["hello both"]);
    fleet.push("$all/news", "everybody");
    assert_eq!(fleet.take("car-7", 1), ["news everybody"], "what was acknowledged came again");
}

/// A push to a client that nobody knows is an error that the back end sees; with `queue` it waits.
#[test]
fn unknown_clients_are_an_error_or_wait() {
    let mut fleet = fleet();
    let refused = publish_v5(fleet.daemon.mqtt(), &fleet.back_end, "$client/car-9/x");
    assert_eq!(refused, "Warning: Publish 1 failed: Topic Name invalid.\n");
    fleet.daemon.set("registrations.unknown_client=queue");
    assert!(fleet.daemon.terminate().success());
    fleet.daemon.restart();
    fleet.push("$client/car-9/x", "early");
    assert_eq!(fleet.take("car-9", 1), ["x early"]);
}

/// What `mosquitto_pub` says of a publish that the server refuses.
fn publish_v5(broker: SocketAddr, token: &str, topic: &str) -> String {
    let mut command = mosquitto("mosquitto_pub", broker);
    command.args(["-V", "mqttv5", "-u", "back-end", "-P", token, "-q", "1", "-t", topic, "-m", "x"]);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
