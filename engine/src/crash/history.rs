//! `crash.json` of the data directory: the last crashes, and who is suspected because of them.
//!
//! `{"crashes":[{"at":1700000000,"shard":0,"thread":"shard","doing":"input","client":"truck-7",…}]}`, oldest first.
//! The file is replaced as a whole, and read at start and at a reload. Deleting it lifts every bar.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use postroad_base::{ClientId, MessageId, WallMillis, utc};
use postroad_plugins::SetHash;
use serde::{Deserialize, Serialize};

pub(super) const FILE_NAME: &str = "crash.json";
/// Crashes that are remembered.
const CRASHES_MAX: usize = 8;
/// Two crashes within this time that name the same suspect convict it.
const SUSPICION_SECONDS: u64 = 600;

/// What a thread was at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    /// A packet of a client.
    Input,
    /// A message that another shard has taken in.
    Forward,
    /// A message on its way to a client.
    Delivery,
    /// A record of the log, at start.
    Recovery,
    /// Anything else.
    #[default]
    Other,
}

/// One crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Crash {
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// Whose thread it was, if a shard's.
    pub(crate) shard: Option<u16>,
    pub(crate) thread: String,
    pub(crate) doing: Doing,
    /// Whose input was in hand, or whose message.
    pub(crate) client: Option<String>,
    pub(crate) connection: Option<u64>,
    /// 32 hex digits.
    pub(crate) message: Option<String>,
    /// Whose script ran, and the hash of its text in hex digits.
    pub(crate) plugin: Option<String>,
    pub(crate) plugin_version: Option<String>,
    pub(crate) panic: String,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    crashes: Vec<Crash>,
}

/// Whom two crashes have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Suspect {
    Client(ClientId),
    Message(MessageId),
    /// A version of one: another text may be right.
    Plugin(SetHash),
}

impl Crash {
    /// The likeliest first. While a plugin ran it is that one: whoever had sent what it was asked about is not to blame. A
    /// message that is being taken in gets another id each time that it is published, so its publisher has to be kept away;
    /// one that comes from the log has done the harm by itself.
    fn suspects(&self) -> impl Iterator<Item = Suspect> {
        let client = self.client.as_deref().map(|client| Suspect::Client(client.into()));
        let id = self.message.as_deref().and_then(|text| u128::from_str_radix(text, 16).ok());
        let message = id.filter(|id| *id != 0).map(|id| Suspect::Message(MessageId(id)));
        let plugin = self.plugin_version.as_deref().and_then(SetHash::parse).map(Suspect::Plugin);
        let ordered = match self.doing {
            Doing::Input | Doing::Forward => [plugin, client, message],
            Doing::Delivery | Doing::Recovery | Doing::Other => [plugin, message, client],
        };
        ordered.into_iter().flatten()
    }

    fn shared_suspect(&self, other: &Self) -> Option<Suspect> {
        let others: Vec<_> = other.suspects().collect();
        self.suspects().find(|suspect| others.contains(suspect))
    }
}

/// What follows from the crashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Clients that are not let in, and until when.
    pub(crate) barred: AHashMap<ClientId, WallMillis>,
    /// Messages that are set aside, and why.
    pub(crate) poison: AHashMap<MessageId, String>,
    /// Versions of plugins that are not called, with the name, and why.
    pub(crate) disabled: BTreeMap<SetHash, (String, String)>,
}

/// Who was named by two crashes within ten minutes. A bar holds for `bar_time` after the second one, and for no more
/// than that from `now` on, should the clock have been ahead.
pub(crate) fn judge(crashes: &[Crash], bar_time: Duration, now: WallMillis) -> Verdict {
    let mut verdict = Verdict::default();
    let bar = u64::try_from(bar_time.as_millis()).unwrap_or(u64::MAX);
    for (place, second) in crashes.iter().enumerate() {
        for first in &crashes[..place] {
            if second.at.abs_diff(first.at) > SUSPICION_SECONDS {
                continue;
            }
            match first.shared_suspect(second) {
                Some(Suspect::Client(client)) => {
                    let until = WallMillis(second.at.saturating_mul(1000)).after(bar).min(now.after(bar));
                    if until > now {
                        verdict.barred.insert(client, until);
                    }
                }
                Some(Suspect::Message(id)) => {
                    let why = format!("the server crashed twice over it, last at {}: {}", utc(second.at), second.panic);
                    verdict.poison.insert(id, why);
                }
                Some(Suspect::Plugin(version)) => {
                    let why = format!("the server crashed twice in it, last at {}: {}", utc(second.at), second.panic);
                    let name = second.plugin.clone().unwrap_or_default();
                    verdict.disabled.insert(version, (name, why));
                }
                None => {}
            }
        }
    }
    verdict
}

/// Versions of plugins that are not called now.
pub(crate) fn disabled_plugins(data_dir: &Path) -> BTreeSet<SetHash> {
    judge(&read(data_dir), Duration::ZERO, WallMillis(0)).disabled.into_keys().collect()
}

/// The crashes that are remembered. A file that can't be read accuses nobody.
pub(crate) fn read(data_dir: &Path) -> Vec<Crash> {
    let path = data_dir.join(FILE_NAME);
    let Ok(text) = std::fs::read(&path) else { return Vec::new() };
    match serde_json::from_slice::<File>(&text) {
        Ok(file) => file.crashes,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the report of earlier crashes can't be read: nobody is barred");
            Vec::new()
        }
    }
}

pub(super) fn add(data_dir: &Path, crash: Crash) -> std::io::Result<()> {
    let mut crashes = read(data_dir);
    crashes.push(crash);
    crashes.drain(..crashes.len().saturating_sub(CRASHES_MAX));
    let text = serde_json::to_vec_pretty(&File { crashes }).map_err(std::io::Error::other)?;
    std::fs::create_dir_all(data_dir)?;
    postroad_storage::space::write_new(data_dir, FILE_NAME, &text)
}

pub(super) fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MESSAGE: &str = "0000019f00000000000000000000002a";

    fn crash(at: u64, doing: Doing, client: Option<&str>, message: Option<&str>) -> Crash {
        let (client, message) = (client.map(str::to_owned), message.map(str::to_owned));
        Crash { at, doing, client, message, ..Crash::default() }
    }

    /// The verdict in words, at a time in seconds.
    fn verdict(crashes: &[Crash], now: u64) -> String {
        let Verdict { barred, poison, disabled } = judge(crashes, HOUR, WallMillis(now * 1000));
        let barred = barred.iter().map(|(client, until)| format!("{} until {}", client.as_str(), until.0 / 1000));
        let disabled = disabled.iter().map(|(version, (name, _))| format!("{name} {}", &version.to_string()[..4]));
        let mut words: Vec<_> = barred.chain(poison.keys().map(ToString::to_string)).chain(disabled).collect();
        words.sort();
        words.join(", ")
    }

    #[test]
    fn the_second_crash_within_ten_minutes_convicts() {
        let by_client = |at| crash(at, Doing::Input, Some("a"), None);
        assert_eq!(verdict(&[by_client(1000)], 1000), "");
        assert_eq!(verdict(&[by_client(1000), by_client(1600)], 1700), "a until 5200");
        assert_eq!(verdict(&[by_client(1000), by_client(1601)], 1700), "");
        let other = crash(1200, Doing::Input, Some("b"), None);
        assert_eq!(verdict(&[by_client(1000), other, by_client(1600)], 1700), "a until 5200");
    }

    #[test]
    fn a_bar_ends_by_itself_also_if_the_clock_was_ahead() {
        let twice = [1000, 1100].map(|at| crash(at, Doing::Input, Some("a"), None));
        assert_eq!(verdict(&twice, 1100 + 3599), "a until 4700");
        assert_eq!(verdict(&twice, 1100 + 3600), "");
        assert_eq!(verdict(&twice, 10), "a until 3610");
    }

    /// What comes from the log is to blame itself; what is being taken in has a new id at each attempt.
    #[test]
    fn the_likeliest_suspect_that_both_name_is_convicted_alone() {
        let both = |doing| [1, 2].map(|at| crash(at, doing, Some("a"), Some(MESSAGE)));
        assert_eq!(verdict(&both(Doing::Delivery), 3), MESSAGE);
        assert_eq!(verdict(&both(Doing::Recovery), 3), MESSAGE);
        assert_eq!(verdict(&both(Doing::Forward), 3), "a until 3602");
        let other = "0000019f00000000000000000000002b";
        let different = [MESSAGE, other].map(|message| crash(1, Doing::Delivery, Some("a"), Some(message)));
        assert_eq!(verdict(&different, 3), "a until 3601");
        let zero = [1, 2].map(|at| crash(at, Doing::Delivery, None, Some("00000000000000000000000000000000")));
        assert_eq!(verdict(&zero, 3), "", "what the server itself publishes has no id of its own");
    }

    /// A plugin takes the blame for what it was asked about, in the version that ran.
    #[test]
    fn a_plugin_that_ran_is_convicted_and_nobody_else() {
        let of_version = |digit: &str| Crash {
            plugin: Some("tenant".to_owned()),
            plugin_version: Some(digit.repeat(64)),
            ..crash(1, Doing::Input, Some("a"), Some(MESSAGE))
        };
        assert_eq!(verdict(&[of_version("1"), of_version("1")], 3), "tenant 1111");
        assert_eq!(verdict(&[of_version("1"), of_version("2")], 3), "a until 3601", "the mistake is not the script's");
        assert_eq!(verdict(&[of_version("x"), of_version("x")], 3), "a until 3601", "no version at all");
    }

    #[test]
    fn eight_crashes_are_remembered_and_garbage_accuses_nobody() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for at in 0..10 {
            let crash = Crash { at, panic: "at \"x\"\nboom\\".to_owned(), ..Crash::default() };
            add(folder.path(), crash).expect("writable");
        }
        let crashes = read(folder.path());
        assert_eq!(crashes.iter().map(|crash| crash.at).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(crashes[0].panic, "at \"x\"\nboom\\");
        std::fs::write(folder.path().join(FILE_NAME), "{\"crashes\":[{\"at\":").expect("writable");
        assert!(read(folder.path()).is_empty());
        add(folder.path(), Crash::default()).expect("writable");
        assert_eq!(read(folder.path()), [Crash::default()]);
    }
}
