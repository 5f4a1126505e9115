//! Watching what happens as it happens: lines of all shards for one reader, and what there was no room for.

use bytestring::ByteString;
use postroad_base::{ClientId, ShardId, TopicFilter, WallMillis};
use serde::Serialize;

/// Lines that may wait for a reader.
pub(crate) const LINES_MAX: usize = 1024;

/// What somebody wants to see happen. A shard forgets it when nobody listens any more.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What concerns this client.
    pub client: Option<ByteString>,
    /// What concerns messages whose topic matches.
    pub topic: Option<TopicFilter>,
    /// So many lines in a second at most, of this shard.
    pub lines_per_second: u32,
    /// Where lines go; one that finds no room is left out, and counted.
    pub lines: flume::Sender<WatchedLine>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedLine {
    /// When.
    pub at: WallMillis,
    /// On which shard.
    pub shard: ShardId,
    /// Whom it concerns; `None`: a message as a whole.
    pub client: Option<ClientId>,
    /// What kind of thing.
    pub what: Watched,
    /// In words.
    pub text: String,
    /// So many lines before this one were left out.
    pub left_out: u64,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// A packet of the client came in.
    In,
    /// A packet left for it, as far as its output.
    Out,
    /// Bytes of its output went to the kernel.
    Write,
    /// A message took a step.
    Step,
    /// Its connection is over.
    End,
}

/// The same in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct LineJson<'a> {
    at_unix_ms: u64,
    shard: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    what: Watched,
    text: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

impl<'a> From<&'a WatchedLine> for LineJson<'a> {
    fn from(line: &'a WatchedLine) -> Self {
        let WatchedLine { at, shard, client, what, text, left_out } = line;
        let client = client.as_ref().map(ClientId::as_str);
        Self { at_unix_ms: at.0, shard: shard.0, client, what: *what, text, left_out: *left_out }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
