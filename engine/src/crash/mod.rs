//! What happens at a panic: the process stops and recovers from its log, since a shard that panicked half-way
//! through a change can't be trusted. Only decoding and per-connection state, which touch nothing shared, are
//! guarded: there one connection ends, unless a script runs, which is of all. So is the check of a password: that client is refused.
//!
//! ```text
//! panic ─► hook ─┬─ guarded ─────► the caller goes on without that connection
//!                ├─ a shard ─────► unwinds to the turn, which adds the client's name ─► crash.json ─► abort
//!                └─ any other ───► crash.json ─► abort
//! start ─► crash.json ─► judge ─► who was named twice within 10 minutes is barred, set aside or disabled
//! ```
//! - What is in hand is a few numbers in cells of the thread: nothing is allocated or looked up per message. The
//!   name of the client is looked up once, after the panic, in the state of the shard that had it.
//! - That state is only read then, and nothing is written to sockets or log any more.

mod history;
pub(crate) mod quarantine;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use postroad_base::{ClientId, ConnectionId, Message, MessageId, QueueId, ShardId};

pub(crate) use history::{Crash, Doing, Verdict, disabled_plugins, judge, read};
pub(crate) use postroad_base::utc;

/// Characters of a panic's text that are kept.
const WORDS_MAX: usize = 2_000;

/// Whose thread this is.
#[derive(Clone, Debug)]
struct Place {
    shard: Option<ShardId>,
    data_dir: PathBuf,
}

/// What a thread was at when it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InHand {
    pub(crate) doing: Doing,
    /// Whose input it was.
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) message: Option<MessageId>,
    /// A message of another shard: the queue of its publisher.
    pub(crate) publisher: QueueId,
}

const EMPTY: InHand = InHand { doing: Doing::Other, connection: None, message: None, publisher: QueueId::NONE };

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Somebody up the stack catches the panic, adds a name, and stops the process.
    static WITNESSED: Cell<bool> = const { Cell::new(false) };
    /// The words of the panic that is on its way to the witness.
    static WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
    static IN_HAND: Cell<InHand> = const { Cell::new(EMPTY) };
    /// The message that is on its way to a client.
    static SENDING: Cell<Option<MessageId>> = const { Cell::new(None) };
    /// The report is being written.
    static LEAVING: Cell<bool> = const { Cell::new(false) };
    /// A client that is not known to the broker yet.
    static NEWCOMER: RefCell<Option<ClientId>> = const { RefCell::new(None) };
}

/// Where threads leave their last words that belong to no shard.
static PROCESS: OnceLock<PathBuf> = OnceLock::new();

/// From now on a panic on any thread of the process stops it, unless it is guarded, and leaves `crash.json` in this data
/// directory. For the server's binary; a library that embeds an engine gets this for the engine's threads only.
pub fn watch_process(data_dir: &Path) {
    let _first_one_counts = PROCESS.set(data_dir.to_owned());
    install_hook();
}

/// This thread works for a shard: a panic on it stops the process.
pub(crate) fn watch_this_thread(shard: ShardId, data_dir: &Path) {
    install_hook();
    PLACE.with(|own| *own.borrow_mut() = Some(Place { shard: Some(shard), data_dir: data_dir.to_owned() }));
}

fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            at_panic(panic);
        }));
    });
}

/// Runs what may panic without harm to anything shared. `None` if it did.
pub(crate) fn guarded<T>(act: impl FnOnce() -> T) -> Option<T> {
    GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(act));
    GUARDED.set(false);
    outcome.ok()
}

/// Runs what may harm what is shared by a panic. After an `Err` the caller looks up a name and calls [`stop`].
pub(crate) fn witnessed<T>(act: impl FnOnce() -> T) -> Result<T, InHand> {
    WITNESSED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(act));
    WITNESSED.set(false);
    outcome.map_err(|_| in_hand())
}

/// Writes down what was in hand, and ends the process.
pub(crate) fn stop(client: Option<ClientId>) -> ! {
    let words = WORDS.take().unwrap_or_default();
    leave_report(client, words);
    std::process::abort();
}

/// The input of this connection is being handled; `None`: nothing is in hand.
pub(crate) fn take_in_hand(connection: Option<ConnectionId>) {
    let doing = if connection.is_some() { Doing::Input } else { Doing::Other };
    IN_HAND.set(InHand { doing, connection, ..EMPTY });
}

/// Runs the beginning of a client's session, then goes on with what was in hand before.
pub(crate) fn welcoming<T>(client: &ClientId, act: impl FnOnce() -> T) -> T {
    NEWCOMER.set(Some(client.clone()));
    let before = IN_HAND.replace(InHand { doing: Doing::Input, ..EMPTY });
    let outcome = act();
    IN_HAND.set(before);
    NEWCOMER.set(None);
    outcome
}

/// A message that another shard has sent.
pub(crate) fn take_forward_in_hand(message: &Message) {
    // One that asks for its key has no id yet.
    let (id, publisher) = (Some(message.id).filter(|id| *id != MessageId(0)), message.publisher);
    IN_HAND.set(InHand { doing: Doing::Forward, connection: None, message: id, publisher });
}

/// A record is being replayed that holds this message.
pub(crate) fn take_replay_in_hand(message: Option<MessageId>) {
    IN_HAND.set(InHand { doing: Doing::Recovery, connection: None, message, publisher: QueueId::NONE });
}

/// Runs the sending of a message. It does not nest, and has a cell of its own, since it happens for each delivery.
pub(crate) fn delivering<T>(message: MessageId, act: impl FnOnce() -> T) -> T {
    SENDING.set(Some(message));
    let outcome = act();
    SENDING.set(None);
    outcome
}

fn in_hand() -> InHand {
    let in_hand = IN_HAND.get();
    match SENDING.get() {
        Some(message) => InHand { doing: Doing::Delivery, message: Some(message), ..in_hand },
        None => in_hand,
    }
}

fn at_panic(panic: &PanicHookInfo<'_>) {
    let runs_script = postroad_plugins::in_hand().is_some();
    if GUARDED.get() && !runs_script {
        return;
    }
    if place().is_none() {
        return; // a thread of somebody who embeds the engine
    }
    if GUARDED.get() {
        // A codec of functions: its VM is that of all plugins of the shard, and is left half-way.
        leave_report(None, panic.to_string());
        std::process::abort();
    }
    let first = WORDS.take();
    if WITNESSED.get() && first.is_none() {
        WORDS.set(Some(panic.to_string()));
        return;
    }
    // Also the second panic of one that was on its way to its witness: the first one's words count.
    leave_report(None, first.unwrap_or_else(|| panic.to_string()));
    std::process::abort();
}

fn place() -> Option<Place> {
    let own = PLACE.with(|own| own.try_borrow().ok().and_then(|own| own.clone()));
    own.or_else(|| PROCESS.get().map(|data_dir| Place { shard: None, data_dir: data_dir.clone() }))
}

/// Adds to `crash.json`. Of two threads that panic at once the first one writes, and the process is over before the
/// second one gets its turn.
fn leave_report(client: Option<ClientId>, panic: String) {
    static LAST_WORDS: Mutex<()> = Mutex::new(());
    if LEAVING.replace(true) {
        return; // writing it has panicked
    }
    let _until_the_end = std::mem::ManuallyDrop::new(LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner));
    let Some(place) = place() else { return };
    let client = client.or_else(|| NEWCOMER.with(|own| own.try_borrow().ok().and_then(|own| own.clone())));
    let (in_hand, plugin) = (in_hand(), postroad_plugins::in_hand());
    let crash = Crash {
        at: history::seconds_now(),
        shard: place.shard.map(|shard| shard.0),
        thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
        doing: in_hand.doing,
        client: client.map(|client| client.as_str().to_owned()),
        connection: in_hand.connection.map(|connection| connection.0),
        message: in_hand.message.map(|message| message.to_string()),
        plugin: plugin.map(|plugin| plugin.name.to_owned()),
        plugin_version: plugin.map(|plugin| plugin.version.to_string()),
        panic: panic.chars().take(WORDS_MAX).collect(),
    };
    // A report that can't be written stops nobody from stopping: the words are in the log already.
    if let Err(error) = history::add(&place.data_dir, crash) {
        eprintln!("postroad: {} can't be written: {error}", history::FILE_NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guarded_ends_alone() {
        assert_eq!(guarded(|| 1), Some(1));
        let empty: &[u8] = &[];
        assert_eq!(guarded(|| empty[std::hint::black_box(0)]), None);
        assert!(!GUARDED.get());
    }

    #[test]
    fn a_witness_learns_what_was_in_hand() {
        take_in_hand(Some(ConnectionId(7)));
        let panicked = witnessed(|| delivering(MessageId(9), || panic!("boom")));
        let expected =
            InHand { doing: Doing::Delivery, connection: Some(ConnectionId(7)), message: Some(MessageId(9)), ..EMPTY };
        assert_eq!(panicked, Err::<(), _>(expected));
        assert_eq!(delivering(MessageId(8), || in_hand().message), Some(MessageId(8)));
        take_in_hand(None);
        assert_eq!(in_hand(), EMPTY);
    }
}
