//! What is known of each message, and what must hold of it.
//!
//! 1. What was answered as published ends: somebody has taken it, it is a dead letter, the operator has dropped it, its time was over, or a
//!    newer one of its collapse key has replaced it. The same holds for what was met once, whatever its publisher was told.
//! 2. What a receiver has acknowledged never comes again, once that is known to be stored: an answer of the API, or a connection that
//!    was closed by the server after all was read, and a next one, without a kill in between; nor does what was released (PUBREL).
//! 3. At QoS 2 each is taken once; what comes again at QoS 1 says so (DUP), as does what a group gives again.
//! 4. What was seen as a dead letter does not come to its receiver again, and what was refused or given up is lost to none.
//! 5. What an action was answered to have done holds; one without an answer holds wholly or not at all: the letter is there, or the new
//!    message, never both, never neither.
//! 6. An idempotency key that is repeated gives the same id.
//! 7. Nothing comes before its time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postroad_base::Qos;
use serde_json::Value;

/// Who is to get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The device of this number.
    Device(usize),
    /// The consumer group.
    Group,
}

/// What its publisher wished.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Who is to get it.
    pub target: Target,
    /// At which level.
    pub qos: Qos,
    /// It may be over before anybody takes it.
    pub is_short: bool,
    /// A newer one of this key replaces it.
    pub collapse_key: Option<u64>,
    /// Not before then, in milliseconds since 1970.
    pub deliver_at: Option<u64>,
}

impl Wish {
    /// Without any wish.
    pub fn plain(target: Target, qos: Qos) -> Self {
        Self { target, qos, is_short: false, collapse_key: None, deliver_at: None }
    }
}

/// What is known of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// There was no answer.
    Maybe,
    /// It was answered.
    Done,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Dropped(Known),
    /// Sent again under this name. To a topic: both may be there if that was not answered.
    Requeued {
        to: String,
        known: Known,
        to_topic: bool,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    wish: Wish,
    /// In which place it was asked for, over all.
    order: usize,
    known: Known,
    /// The id that its publisher was told.
    id: Option<String>,
    /// It must not be there: the action that was to make it was not done.
    is_void: bool,
    /// How often it came without a word of an earlier time.
    fresh: u32,
    /// How often it came to its receiver.
    came: u32,
    /// How often its receiver has taken it.
    taken: u32,
    /// Its receiver's acknowledgement is known to be stored.
    is_stored: bool,
    /// QoS 2: it was released, so it does not come again. It may be a letter still: the server releases what it gives up, too.
    is_released: bool,
    /// It was met as this letter.
    letter: Option<String>,
    /// It was met as a letter, or as what an operator wanted of it, so it must not be one any more.
    has_left: bool,
    fate: Option<Fate>,
    /// What a look at its letter may find as its note.
    notes: Vec<Option<String>>,
    /// What happened to it, for whoever looks for a bug: shown with what is broken.
    story: Vec<String>,
}

impl Entry {
    fn happens(&mut self, what: impl Into<String>) {
        let what = what.into();
        if self.story.last() != Some(&what) {
            self.story.push(what);
        }
    }
}

/// All messages.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<String, Entry>,
    /// What was done, for the report.
    counts: BTreeMap<&'static str, u64>,
    /// Names by id.
    ids: HashMap<String, String>,
}

impl Ledger {
    /// Counts a deed for the report.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// What was done, in a line.
    pub fn report(&self) -> String {
        let counts = self.counts.iter().map(|(what, count)| format!("{count} {what}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// How often something was counted.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.entries.get_mut(name).unwrap_or_else(|| panic!("{name} was never published"))
    }

    /// Somebody is about to publish, requeue or import this.
    pub fn asked(&mut self, name: &str, wish: Wish) {
        let entry = Entry {
            wish,
            order: self.entries.len(),
            known: Known::Maybe,
            id: None,
            is_void: false,
            fresh: 0,
            came: 0,
            taken: 0,
            is_stored: false,
            is_released: false,
            letter: None,
            has_left: false,
            fate: None,
            notes: vec![None],
            story: vec!["asked".into()],
        };
        assert!(self.entries.insert(name.to_owned(), entry).is_none(), "{name} is no new name");
        self.count("asked");
    }

    /// It was answered that this is published, with this id [6].
    pub fn published(&mut self, name: &str, id: Option<&str>) {
        let entry = self.entry(name);
        assert!(!entry.is_void, "{name} was refused or not done, and is answered now");
        entry.known = Known::Done;
        entry.happens("published");
        let Some(id) = id else { return };
        let before = entry.id.get_or_insert_with(|| id.to_owned());
        assert_eq!(before, id, "{name} has another id when it is repeated");
        self.ids.insert(id.to_owned(), name.to_owned());
    }

    /// It was answered that this is not published.
    pub fn refused(&mut self, name: &str) {
        let entry = self.entry(name);
        assert!(
            entry.known == Known::Maybe && entry.came == 0 && entry.letter.is_none(),
            "{name} was refused, and is there"
        );
        entry.is_void = true;
        self.count("refused");
    }

    /// It came to its receiver; `again`: with the word that it may have come before.
    pub fn came(&mut self, name: &str, target: Target, again: bool, now: u64) {
        let parent = self.moved_from(name);
        let entry = self.entry(name);
        entry.happens(if again { "came again" } else { "came" });
        assert_eq!(entry.wish.target, target, "{name} came to somebody else");
        assert!(!entry.is_void, "{name} was refused or not done, and comes: {entry:?}");
        assert!(!entry.is_stored, "{name} was acknowledged, that was stored, and it comes again: {entry:?}");
        assert!(!entry.is_released, "{name} was released, and it comes again: {entry:?}");
        assert!(entry.letter.is_none(), "{name} is a dead letter, and comes: {entry:?}");
        let is_early = entry.wish.deliver_at.is_some_and(|due| now < due);
        assert!(!is_early, "{name} comes at {now}, before its time {:?}", entry.wish.deliver_at);
        entry.came += 1;
        entry.fresh += u32::from(!again);
        assert!(
            entry.fresh <= 1,
            "{name} comes a second time, and does not say that it may have come before: {entry:?}"
        );
        self.count(if again { "given again" } else { "given" });
        self.has_left(parent);
    }

    /// A look at what waits for its receiver has met it: nothing is taken by that.
    pub fn shown(&mut self, name: &str, target: Target, life: u64) {
        let entry = self.entry(name);
        entry.happens(format!("shown in life {life}"));
        assert_eq!(entry.wish.target, target, "{name} waits for somebody else");
        assert!(!entry.is_void, "{name} was refused or not done, and waits: {entry:?}");
        assert!(!entry.is_stored, "{name} was acknowledged, that was stored, and it waits: {entry:?}");
        assert!(entry.letter.is_none(), "{name} is a dead letter, and waits: {entry:?}");
        entry.came += 1;
        let parent = self.moved_from(name);
        self.has_left(parent);
    }

    /// Something to be told with what is broken.
    pub fn note(&mut self, name: &str, what: impl Into<String>) {
        self.entry(name).happens(what);
    }

    /// A device has taken it, and acknowledges: at QoS 2 once.
    pub fn taken(&mut self, name: &str) {
        self.handed_out(name);
        let entry = self.entry(name);
        assert!(entry.wish.qos != Qos::ExactlyOnce || entry.taken == 1, "{name} of QoS 2 was taken twice: {entry:?}");
    }

    /// An application has it through the API, which knows no handshake: it may get it again until its acknowledgement is stored.
    pub fn handed_out(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.taken += 1;
        entry.happens("taken");
        self.count("taken");
    }

    /// That acknowledgement is stored.
    pub fn stored(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.is_stored = true;
        entry.happens("stored");
    }

    /// A device has got its PUBREL.
    pub fn released(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.is_released = true;
        entry.happens("released");
    }

    /// The letter that was, perhaps, sent again under this name, to whomever.
    fn parent_of<'a>(&'a self, name: &'a str) -> Option<(&'a str, &'a Fate)> {
        // Names say whose they are: r<number>.<parent>.
        let parent = name.strip_prefix('r')?.split_once('.')?.1;
        let fate = self.entries.get(parent)?.fate.as_ref()?;
        matches!(fate, Fate::Requeued { to, .. } if to == name).then_some((parent, fate))
    }

    /// The letter that is no more once this is met: then an action that was not answered is known to be done.
    fn moved_from(&self, name: &str) -> Option<String> {
        let (parent, fate) = self.parent_of(name)?;
        matches!(fate, Fate::Requeued { to_topic: false, .. }).then(|| parent.to_owned())
    }

    fn has_left(&mut self, parent: Option<String>) {
        if let Some(parent) = parent {
            self.entry(&parent).has_left = true;
        }
    }

    /// A look at the letters has met this one, as the API shows it.
    pub fn letter_seen(&mut self, letter: &Value) {
        let (name, id) = (payload_of(letter), text_of(letter, "id"));
        let parent = self.moved_from(name);
        let entry = self.entry(name);
        entry.happens(format!("seen as a letter: {letter}"));
        assert!(!entry.is_void, "{name} was refused or not done, and is a letter: {entry:?}");
        assert!(!entry.is_stored, "{name} was acknowledged, that was stored, and it is a letter: {entry:?}");
        assert!(!entry.has_left, "{name} was sent again or dropped, and is a letter: {entry:?}");
        assert!(entry.letter.as_deref().is_none_or(|known| known == id), "{name} is two letters");
        entry.letter = Some(id.to_owned());
        let note = letter["parked"]["note"].as_str().map(str::to_owned);
        assert!(entry.notes.contains(&note), "{name} is parked with {note:?}, not one of {:?}: {entry:?}", entry.notes);
        entry.notes = vec![note];
        let undone = entry.fate.take();
        if let Some(Fate::Requeued { to, to_topic: false, .. }) = undone {
            let new = self.entry(&to);
            assert!(new.came == 0 && new.letter.is_none(), "{name} is a letter still, and {to} is there, too");
            new.is_void = true;
            self.count("requeues that a kill has prevented");
        }
        self.has_left(parent);
    }

    /// Who is to get what a letter holds, and at which level.
    pub fn wish_of(&self, name: &str) -> Wish {
        self.entries[name].wish.clone()
    }

    /// The operator is about to send a letter again under a new name, at the level of the letter.
    pub fn requeues(&mut self, name: &str, to: &str, topic: Option<Target>, qos: Qos) {
        let target = topic.unwrap_or(self.wish_of(name).target);
        self.asked(to, Wish::plain(target, qos));
        let (to, to_topic) = (to.to_owned(), topic.is_some());
        self.entry(name).happens(format!("is to be sent again as {to}"));
        self.entry(name).fate = Some(Fate::Requeued { to, known: Known::Maybe, to_topic });
    }

    /// That was answered.
    pub fn requeued(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.has_left = true;
        entry.happens("sent again");
        let Some(Fate::Requeued { to, known, .. }) = &mut entry.fate else {
            panic!("{name} is not requeued: {entry:?}")
        };
        *known = Known::Done;
        let to = to.clone();
        self.published(&to, None);
        self.count("requeued");
    }

    /// The action was refused: nothing is changed.
    pub fn requeue_refused(&mut self, name: &str) {
        let Some(Fate::Requeued { to, .. }) = self.entry(name).fate.take() else { panic!("{name} is not requeued") };
        self.refused(&to);
        self.count("requeues refused");
    }

    /// The operator is about to drop a letter.
    pub fn drops(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.happens("is to be dropped");
        entry.fate = Some(Fate::Dropped(Known::Maybe));
    }

    /// That was answered; or refused.
    pub fn dropped(&mut self, name: &str, is_done: bool) {
        let entry = self.entry(name);
        entry.fate = is_done.then_some(Fate::Dropped(Known::Done));
        entry.has_left = is_done;
        self.count(if is_done { "dropped" } else { "refused" });
    }

    /// The operator is about to park a letter with this note, or to end that.
    pub fn parks(&mut self, name: &str, note: Option<String>) {
        self.entry(name).notes.push(note);
    }

    /// That was answered; or refused.
    pub fn parked(&mut self, name: &str, is_done: bool) {
        let notes = &mut self.entry(name).notes;
        let last = notes.pop().expect("a note was pushed");
        if is_done {
            *notes = vec![last];
            self.count("parked or taken back");
        }
    }

    /// The name of the message of this id.
    pub fn name_of(&self, id: &str) -> Option<&str> {
        self.ids.get(id).map(String::as_str)
    }

    /// Whether its receiver has been given it.
    pub fn has_come(&self, name: &str) -> bool {
        self.entries[name].came > 0
    }

    /// Everything has come to rest, and these are all letters there are [1], [5].
    pub fn judge(&mut self, letters: &[Value]) {
        let letters: BTreeSet<&str> = letters.iter().map(payload_of).collect();
        let mut lost: Vec<&String> = Vec::new();
        for (name, entry) in &self.entries {
            assert!(entry.fate != Some(Fate::Dropped(Known::Done)) || !letters.contains(&**name), "{name} was dropped");
            if self.must_be_somewhere(name, entry) && !self.is_accounted_for(name, entry, &letters) {
                lost.push(name);
            }
        }
        lost.sort();
        let what: Vec<_> = lost.iter().map(|name| (name, &self.entries[*name])).collect();
        assert!(lost.is_empty(), "published, and neither taken nor kept: {what:#?}");
        let left = letters.len() as u64;
        self.counts.insert("letters left", left);
    }

    fn must_be_somewhere(&self, name: &str, entry: &Entry) -> bool {
        let was_met = entry.came > 0 || entry.letter.is_some();
        // The letter is gone, so the requeue that was not answered was done.
        let is_requeue = self.parent_of(name).is_some();
        !entry.is_void && (entry.known == Known::Done || was_met || is_requeue)
    }

    fn is_accounted_for(&self, name: &str, entry: &Entry, letters: &BTreeSet<&str>) -> bool {
        let is_over = entry.taken > 0 || entry.wish.is_short || entry.fate.is_some();
        is_over || letters.contains(name) || self.is_replaced(entry)
    }

    /// A newer one of its key was taken in.
    fn is_replaced(&self, entry: &Entry) -> bool {
        let is_newer = |other: &&Entry| {
            let is_of_key =
                other.wish.target == entry.wish.target && other.wish.collapse_key == entry.wish.collapse_key;
            let is_there = other.known == Known::Done || other.came > 0 || other.letter.is_some();
            is_of_key && is_there && other.order > entry.order
        };
        entry.wish.collapse_key.is_some() && entry.letter.is_none() && self.entries.values().find(is_newer).is_some()
    }
}

/// The payload of a letter or a delivery: the name of its message.
pub fn payload_of(value: &Value) -> &str {
    text_of(value, "payload")
}

/// The level of a letter.
pub fn qos_of(letter: &Value) -> Qos {
    if letter["qos"] == 2 { Qos::ExactlyOnce } else { Qos::AtLeastOnce }
}

/// A field that is text.
pub fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DEVICE: Target = Target::Device(0);

    fn with(names: &[&str], qos: Qos) -> Ledger {
        let mut ledger = Ledger::default();
        for name in names {
            ledger.asked(name, Wish::plain(DEVICE, qos));
            ledger.published(name, Some(name));
        }
        ledger
    }

    fn letter(name: &str) -> Value {
        json!({"id": format!("letter of {name}"), "payload": name})
    }

    #[test]
    fn what_is_taken_kept_or_dropped_is_well() {
        let mut ledger = with(&["a", "b", "c"], Qos::AtLeastOnce);
        ledger.came("a", DEVICE, false, 1);
        ledger.came("a", DEVICE, true, 1);
        ledger.taken("a");
        ledger.letter_seen(&letter("b"));
        ledger.letter_seen(&letter("c"));
        ledger.drops("c");
        ledger.dropped("c", true);
        ledger.asked("nobody was told", Wish::plain(DEVICE, Qos::AtLeastOnce));
        ledger.judge(&[letter("b")]);
    }

    #[test]
    #[should_panic(expected = "neither taken nor kept")]
    fn what_is_lost_is_found() {
        with(&["a"], Qos::AtLeastOnce).judge(&[]);
    }

    #[test]
    #[should_panic(expected = "neither taken nor kept")]
    fn what_was_met_once_and_is_lost_is_found() {
        let mut ledger = Ledger::default();
        ledger.asked("a", Wish::plain(DEVICE, Qos::AtLeastOnce));
        ledger.came("a", DEVICE, false, 1);
        ledger.judge(&[]);
    }

    #[test]
    #[should_panic(expected = "it comes again")]
    fn what_comes_after_its_acknowledgement_is_found() {
        let mut ledger = with(&["a"], Qos::AtLeastOnce);
        ledger.came("a", DEVICE, false, 1);
        ledger.stored("a");
        ledger.came("a", DEVICE, true, 1);
    }

    #[test]
    #[should_panic(expected = "taken twice")]
    fn what_is_taken_twice_at_qos_2_is_found() {
        let mut ledger = with(&["a"], Qos::ExactlyOnce);
        ledger.taken("a");
        ledger.taken("a");
    }

    #[test]
    #[should_panic(expected = "does not say")]
    fn a_second_copy_that_does_not_say_so_is_found() {
        let mut ledger = with(&["a"], Qos::AtLeastOnce);
        ledger.came("a", DEVICE, false, 1);
        ledger.came("a", DEVICE, false, 1);
    }

    #[test]
    #[should_panic(expected = "before its time")]
    fn what_is_early_is_found() {
        let mut ledger = Ledger::default();
        ledger.asked("a", Wish { deliver_at: Some(5), ..Wish::plain(DEVICE, Qos::AtLeastOnce) });
        ledger.came("a", DEVICE, false, 4);
    }

    #[test]
    #[should_panic(expected = "another id")]
    fn a_key_with_two_ids_is_found() {
        let mut ledger = with(&["a"], Qos::AtLeastOnce);
        ledger.published("a", Some("b"));
    }

    fn requeue_without_answer() -> Ledger {
        let mut ledger = with(&["a"], Qos::AtLeastOnce);
        ledger.letter_seen(&letter("a"));
        ledger.requeues("a", "r1.a", None, Qos::AtLeastOnce);
        ledger
    }

    #[test]
    fn a_requeue_without_answer_is_done_or_not() {
        requeue_without_answer().judge(&[letter("r1.a")]);
        let mut undone = requeue_without_answer();
        undone.letter_seen(&letter("a"));
        undone.judge(&[letter("a")]);
    }

    #[test]
    #[should_panic(expected = "neither taken nor kept")]
    fn a_requeue_that_loses_both_is_found() {
        requeue_without_answer().judge(&[]);
    }

    #[test]
    #[should_panic(expected = "is there, too")]
    fn a_requeue_that_keeps_both_is_found() {
        let mut ledger = requeue_without_answer();
        ledger.came("r1.a", DEVICE, false, 1);
        ledger.entry("a").has_left = false;
        ledger.letter_seen(&letter("a"));
    }

    #[test]
    #[should_panic(expected = "sent again or dropped")]
    fn a_letter_that_comes_back_is_found() {
        let mut ledger = requeue_without_answer();
        ledger.requeued("a");
        ledger.letter_seen(&letter("a"));
    }

    #[test]
    #[should_panic(expected = "not one of")]
    fn a_park_that_is_forgotten_is_found() {
        let mut ledger = with(&["a"], Qos::AtLeastOnce);
        ledger.parks("a", Some("why".into()));
        ledger.parked("a", true);
        ledger.letter_seen(&letter("a"));
    }

    #[test]
    fn only_an_older_one_of_a_key_is_replaced() {
        let mut ledger = Ledger::default();
        for name in ["old", "new"] {
            ledger.asked(name, Wish { collapse_key: Some(1), ..Wish::plain(DEVICE, Qos::AtLeastOnce) });
            ledger.published(name, None);
        }
        ledger.taken("new");
        ledger.judge(&[]);
        ledger.entry("new").taken = 0;
        ledger.entry("old").taken = 1;
        assert!(std::panic::catch_unwind(move || ledger.judge(&[])).is_err());
    }
}
