//! Messages that were set aside, each whole in a file of its own: `quarantine/poison-<message id>.json` of the data
//! directory. The server never reads or deletes one; a later release takes them up as dead letters.

use std::fs::File;
use std::io;
use std::path::Path;

use postroad_base::{ClientId, Message};
use serde::{Deserialize, Serialize};

const FOLDER: &str = "quarantine";

/// A message, as it was published, and to whom it was not delivered.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    id: String,
    topic: String,
    /// Base64 (RFC 4648).
    payload: String,
    /// Base64 of the MQTT 5 properties that travel with it.
    properties: String,
    qos: u8,
    retain: bool,
    published_at: String,
    expires_at: Option<String>,
    /// Clients that it was taken from; empty for a retained message that was cleared.
    clients: Vec<String>,
    set_aside_at: String,
    why: String,
}

/// Keeps a message that is taken from these clients. If it is kept already (by another shard, or from before), they join
/// those of then. Blocks; safe on the disk when it returns.
///
/// # Errors
/// When the file can't be written: then its deliveries must not be ended.
pub(crate) fn keep(data_dir: &Path, message: &Message, clients: &[ClientId], why: &str) -> io::Result<()> {
    let folder = data_dir.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let lock = File::open(&folder)?;
    lock.lock()?; // shards may keep the same message at the same time
    let name = format!("poison-{}.json", message.id);
    let mut kept = match std::fs::read(folder.join(&name)) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|_| new(message, why)),
        Err(_) => new(message, why),
    };
    for client in clients.iter().map(|client| client.as_str().to_owned()) {
        if !kept.clients.contains(&client) {
            kept.clients.push(client);
        }
    }
    let text = serde_json::to_vec_pretty(&kept).map_err(io::Error::other)?;
    postroad_storage::space::write_new(&folder, &name, &text)?;
    postroad_storage::space::sync_directory(data_dir)
}

fn new(message: &Message, why: &str) -> Kept {
    let time = |millis: u64| super::utc(millis / 1000);
    Kept {
        id: message.id.to_string(),
        topic: message.topic.as_str().to_owned(),
        payload: base64(&message.payload),
        properties: base64(&message.properties),
        qos: message.qos.number(),
        retain: message.retain,
        published_at: time(message.id.published_at().0),
        expires_at: message.expires_at.map(|at| time(at.0)),
        clients: Vec::new(),
        set_aside_at: super::utc(super::history::seconds_now()),
        why: why.to_owned(),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit in 0..4 {
            let place = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[place]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use postroad_base::{MessageId, Qos, QueueId, TopicName};

    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn clients_of_several_shards_join_in_one_file() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let message = Message {
            id: MessageId(1_700_000_000_000 << 80 | 42),
            topic: TopicName::new("a/b").expect("a topic"),
            payload: "boom".into(),
            properties: Default::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        for clients in [&["x".into(), "y".into()][..], &["y".into(), "z".into()]] {
            keep(folder.path(), &message, clients, "twice").expect("writable");
        }
        let name = format!("quarantine/poison-{}.json", message.id);
        let text = std::fs::read(folder.path().join(name)).expect("kept");
        let kept: Kept = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(kept.clients, ["x", "y", "z"]);
        assert_eq!((kept.topic.as_str(), kept.payload.as_str(), kept.qos), ("a/b", "Ym9vbQ==", 1));
        assert_eq!(kept.published_at, "2023-11-14T22:13:20Z");
    }
}
