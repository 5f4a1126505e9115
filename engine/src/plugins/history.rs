//! What was tried, and the scripts of it: `plugins/` of the data directory.
//!
//! ```text
//!  plugins/history.jsonl            an Attempt per line, oldest first; replaced as a whole
//!  plugins/scripts/<SHA-256>.lua    each script once, whatever it was called
//! ```
//! - A line is written after its scripts and before anybody runs them: what a line names is there, and what runs has a line.
//! - A line, or a script, that can't be read or is not what its name says costs that attempt, never the start.
//! - What holds whether it can be written or not (a way back, what was refused) is remembered, and written once there is room: [`History::hold`].
//! - Bounded: the oldest attempts go, with scripts that no other names; never the one that runs, nor what it would go back to.
//!
//! Without a data directory the same is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postroad_control::{Action, Attempt, AttemptOutcome};
use postroad_storage::space;

/// Replaces a file of a directory as a whole; on the disk when it returns.
type Write = fn(&Path, &str, &[u8]) -> io::Result<()>;

const LINES: &str = "history.jsonl";
const SCRIPTS: &str = "scripts";
/// Above it, and 0, is no number that a server has given: whoever reloads each second gets there after 68 years.
const GENERATION_MAX: u32 = u32::MAX / 2;

/// A script: its name without its end, and its text.
pub(super) type Script = (String, Arc<str>);

/// See the module head.
#[derive(Debug)]
pub(super) struct History {
    /// `None`: in memory only.
    place: Option<PathBuf>,
    /// Oldest first.
    attempts: Vec<Attempt>,
    /// Those that stand on the disk.
    written: Vec<Attempt>,
    /// By hash.
    scripts: BTreeMap<String, Arc<str>>,
    /// Those of them that are not on the disk.
    unwritten: BTreeSet<String>,
    write: Write,
}

impl Default for History {
    fn default() -> Self {
        Self {
            place: None,
            attempts: Vec::new(),
            written: Vec::new(),
            scripts: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            write: space::write_new,
        }
    }
}

impl History {
    /// Reads what there is.
    ///
    /// # Errors
    /// When the file system says no to the directory, or to the lines.
    pub(super) fn open(place: Option<PathBuf>) -> io::Result<Self> {
        let Some(place) = place else { return Ok(Self::default()) };
        std::fs::create_dir_all(place.join(SCRIPTS))?;
        let attempts = read_lines(&place)?;
        let mut history = Self { place: Some(place), written: attempts.clone(), attempts, ..Self::default() };
        history.read_scripts();
        Ok(history)
    }

    fn read_scripts(&mut self) {
        let Some(place) = &self.place else { return };
        let named: BTreeSet<&String> = self.attempts.iter().flat_map(|attempt| attempt.plugins.values()).collect();
        for hash in named {
            let path = place.join(SCRIPTS).join(file_of(hash));
            match std::fs::read_to_string(&path) {
                Ok(text) if hash_of(&text) == *hash => drop(self.scripts.insert(hash.clone(), text.into())),
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "this script is not what it was: it can't be gone back to")
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "this script can't be read: it can't be gone back to");
                }
            }
        }
    }

    /// Remembers an attempt and its scripts, and forgets the oldest above `max`. On the disk when it returns.
    ///
    /// # Errors
    /// When the file system says no: then nothing is remembered. If it says no so late that the new lines stand there, the old ones are
    /// put back; if that fails too, the error says so.
    pub(super) fn add(&mut self, attempt: Attempt, scripts: &[Script], max: usize) -> io::Result<()> {
        self.write_missing()?;
        let mut added = Vec::new();
        for (_, text) in scripts {
            let hash = hash_of(text);
            if !self.scripts.contains_key(&hash) {
                self.write_script(&hash, text)?;
                added.push((hash, Arc::clone(text)));
            }
        }
        let mut attempts = self.attempts.clone();
        attempts.push(attempt);
        trim(&mut attempts, max);
        self.write_lines(&attempts).map_err(|error| self.with_old_lines(error))?;
        self.attempts = attempts;
        self.scripts.extend(added);
        self.all_is_written();
        Ok(())
    }

    /// The same of what holds in any case: it is remembered, also if it can't be written, and written by [`Self::catch_up`] or with the next one.
    ///
    /// # Errors
    /// As [`Self::add`], but the attempt is remembered.
    pub(super) fn hold(&mut self, attempt: Attempt, scripts: &[Script], max: usize) -> io::Result<()> {
        self.add(attempt.clone(), scripts, max).inspect_err(|_| {
            self.attempts.push(attempt);
            trim(&mut self.attempts, max);
            for (_, text) in scripts {
                let hash = hash_of(text);
                if self.scripts.insert(hash.clone(), Arc::clone(text)).is_none() {
                    self.unwritten.insert(hash);
                }
            }
            let named = self.named();
            self.scripts.retain(|hash, _| named.contains(hash));
            self.unwritten.retain(|hash| named.contains(hash));
        })
    }

    /// Scripts of what is remembered, and of what is written.
    fn named(&self) -> BTreeSet<String> {
        self.attempts.iter().chain(&self.written).flat_map(|attempt| attempt.plugins.values().cloned()).collect()
    }

    /// Something is remembered that is not written.
    pub(super) fn is_behind(&self) -> bool {
        self.attempts != self.written
    }

    /// Writes what is not written.
    ///
    /// # Errors
    /// When the file system says no again.
    pub(super) fn catch_up(&mut self) -> io::Result<()> {
        if self.is_behind() {
            self.write_missing()?;
            self.write_lines(&self.attempts)?;
            self.all_is_written();
        }
        Ok(())
    }

    fn all_is_written(&mut self) {
        self.written.clone_from(&self.attempts);
        self.unwritten.clear();
        self.forget_scripts();
    }

    /// Scripts of what is remembered and not written.
    fn write_missing(&self) -> io::Result<()> {
        self.unwritten.iter().try_for_each(|hash| match self.scripts.get(hash) {
            Some(text) => self.write_script(hash, text),
            None => Ok(()),
        })
    }

    fn write_script(&self, hash: &str, text: &str) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        (self.write)(&place.join(SCRIPTS), &file_of(hash), text.as_bytes())
    }

    fn write_lines(&self, attempts: &[Attempt]) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        (self.write)(place, LINES, text_of(attempts)?.as_bytes())
    }

    /// What is not remembered must not be what the next start runs: a write can fail after the new lines have taken the place of the old
    /// ones, when the directory is synced.
    fn with_old_lines(&self, error: io::Error) -> io::Error {
        let Some(place) = &self.place else { return error };
        let stands = || {
            let text = std::fs::read_to_string(place.join(LINES)).ok()?;
            Some(
                [&self.written, &self.attempts]
                    .into_iter()
                    .any(|lines| text_of(lines).is_ok_and(|lines| lines == text)),
            )
        };
        if stands().unwrap_or(self.written.is_empty()) {
            return error;
        }
        match self.write_lines(&self.attempts) {
            Ok(()) => error,
            Err(again) => io::Error::other(format!(
                "{error}; the lines of before can't be put back either ({again}): the next start goes by what stands there"
            )),
        }
    }

    /// Those that no attempt names any more. A file that stays behind is no harm: it is written again as it is.
    fn forget_scripts(&mut self) {
        let named = self.named();
        let gone: Vec<String> = self.scripts.keys().filter(|hash| !named.contains(*hash)).cloned().collect();
        for hash in gone {
            self.scripts.remove(&hash);
            if let Some(place) = &self.place {
                let _stays_behind = std::fs::remove_file(place.join(SCRIPTS).join(file_of(&hash)));
            }
        }
    }

    /// Oldest first.
    pub(super) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What runs, or ran last.
    pub(super) fn committed(&self) -> Option<&Attempt> {
        committed(&self.attempts)
    }

    /// With what this set came to run, if it is the one that was committed last: a reload of what runs is not its beginning.
    pub(super) fn came_with(&self, set: &str) -> Option<&Attempt> {
        self.attempts
            .iter()
            .rev()
            .filter(|attempt| is_committed(attempt))
            .take_while(|attempt| attempt.set == set)
            .last()
    }

    /// What was committed under this generation.
    pub(super) fn committed_as(&self, generation: u32) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| is_committed(attempt) && attempt.generation == generation)
    }

    /// What to go back to from what runs.
    pub(super) fn before(&self) -> Option<&Attempt> {
        before(&self.attempts)
    }

    /// The next number for a generation; none is used twice, also if it was refused.
    pub(super) fn next_generation(&self) -> u32 {
        self.attempts.iter().map(|attempt| attempt.generation).max().unwrap_or(0) + 1
    }

    /// The hash of what lay in the folder when something was tried last.
    pub(super) fn folder(&self) -> Option<&str> {
        self.attempts.last().map(|attempt| attempt.folder.as_str())
    }

    /// The scripts of an attempt; `None`: some are gone.
    pub(super) fn scripts_of(&self, attempt: &Attempt) -> Option<Vec<Script>> {
        let found = |(name, hash): (&String, &String)| Some((name.clone(), Arc::clone(self.scripts.get(hash)?)));
        attempt.plugins.iter().map(found).collect()
    }
}

fn is_committed(attempt: &Attempt) -> bool {
    attempt.outcome == AttemptOutcome::Committed
}

fn committed(attempts: &[Attempt]) -> Option<&Attempt> {
    attempts.iter().rev().find(|attempt| is_committed(attempt))
}

/// The newest other set that was committed before, other than one that a rollback has left since: who goes back twice goes further back.
fn before(attempts: &[Attempt]) -> Option<&Attempt> {
    let runs = committed(attempts)?;
    let is_left = |attempt: &Attempt| {
        let later =
            attempts.iter().filter(|rollback| is_rollback(rollback) && rollback.generation > attempt.generation);
        let mut left = later.filter_map(|rollback| attempts.iter().find(|left| left.generation == rollback.from));
        left.any(|left| left.set == attempt.set)
    };
    let may = |attempt: &&Attempt| {
        let is_earlier = is_committed(attempt) && attempt.generation < runs.generation;
        is_earlier && attempt.set != runs.set && !is_left(attempt)
    };
    attempts.iter().rev().find(may)
}

fn is_rollback(attempt: &Attempt) -> bool {
    is_committed(attempt) && attempt.action == Action::Rollback
}

fn trim(attempts: &mut Vec<Attempt>, max: usize) {
    while attempts.len() > max {
        let kept = [committed(attempts), before(attempts)].map(|kept| kept.map(|attempt| attempt.generation));
        let may_go = |attempt: &Attempt| !kept.contains(&Some(attempt.generation));
        let Some(oldest) = attempts.iter().position(may_go) else { return };
        attempts.remove(oldest);
    }
}

fn text_of(attempts: &[Attempt]) -> io::Result<String> {
    let mut text = String::new();
    for attempt in attempts {
        text += &serde_json::to_string(attempt).map_err(io::Error::other)?;
        text.push('\n');
    }
    Ok(text)
}

fn read_lines(place: &Path) -> io::Result<Vec<Attempt>> {
    let path = place.join(LINES);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut attempts = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice::<Attempt>(line) {
            Ok(attempt) if (1..=GENERATION_MAX).contains(&attempt.generation) => attempts.push(attempt),
            Ok(Attempt { generation, .. }) => {
                tracing::warn!(path = %path.display(), line = index + 1, generation, "no attempt of the history of plugins has this number");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), line = index + 1, %error, "an attempt of the history of plugins can't be read");
            }
        }
    }
    Ok(attempts)
}

fn file_of(hash: &str) -> String {
    format!("{hash}.lua")
}

/// SHA-256 in hexadecimal digits.
fn hash_of(text: &str) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    sha2::Sha256::digest(text).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes all");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt at one script `text`, under a set of that name.
    fn attempt(generation: u32, action: Action, outcome: AttemptOutcome, text: &str) -> (Attempt, Vec<Script>) {
        let attempt = Attempt {
            generation,
            at: 1_700_000_000,
            by: "operator".into(),
            action,
            outcome,
            set: text.into(),
            plugins: BTreeMap::from([("a".to_owned(), hash_of(text))]),
            folder: text.into(),
            from: generation - 1,
            note: String::new(),
        };
        (attempt, vec![("a".to_owned(), Arc::from(text))])
    }

    fn add(history: &mut History, generation: u32, action: Action, outcome: AttemptOutcome, text: &str) {
        let (attempt, scripts) = attempt(generation, action, outcome, text);
        history.add(attempt, &scripts, 5).expect("writable");
    }

    fn commit(history: &mut History, generation: u32, text: &str) {
        add(history, generation, Action::Replace, AttemptOutcome::Committed, text);
    }

    fn numbers(history: &History) -> Vec<u32> {
        history.attempts().iter().map(|attempt| attempt.generation).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = || Some(data.path().join("plugins"));
        let mut history = History::open(place()).expect("empty");
        assert_eq!((history.next_generation(), history.committed(), history.folder()), (1, None, None));
        commit(&mut history, 1, "one");
        add(&mut history, 2, Action::Canary, AttemptOutcome::Trying, "two");
        let again = History::open(place()).expect("readable");
        assert_eq!(again.attempts(), history.attempts());
        assert_eq!((again.next_generation(), again.folder()), (3, Some("two")));
        let runs = again.committed().expect("committed");
        assert_eq!(again.scripts_of(runs), Some(vec![("a".to_owned(), Arc::from("one"))]));
    }

    #[test]
    fn garbage_costs_the_attempt_and_nothing_else() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().to_owned();
        let mut history = History::open(Some(place.clone())).expect("empty");
        (1..=3).for_each(|generation| commit(&mut history, generation, &generation.to_string()));
        let lines = std::fs::read_to_string(place.join(LINES)).expect("readable");
        let torn = format!("\u{0}garbage\n{}", &lines[..lines.len() - 9]);
        std::fs::write(place.join(LINES), torn).expect("writable");
        std::fs::write(place.join(SCRIPTS).join(file_of(&hash_of("1"))), "other").expect("writable");
        std::fs::remove_file(place.join(SCRIPTS).join(file_of(&hash_of("3")))).expect("it was there");
        let mut history = History::open(Some(place)).expect("readable");
        assert_eq!(numbers(&history), [1, 2]);
        let scripts = |history: &History, at: usize| history.scripts_of(&history.attempts()[at]).is_some();
        assert_eq!((scripts(&history, 0), scripts(&history, 1)), (false, true));
        commit(&mut history, 3, "1");
        assert!(scripts(&history, 0), "written anew");
    }

    #[test]
    fn the_oldest_go_but_what_runs_and_what_is_before_it() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut history = History::open(Some(data.path().to_owned())).expect("empty");
        commit(&mut history, 1, "gone");
        commit(&mut history, 2, "before");
        commit(&mut history, 3, "runs");
        for generation in 4..20 {
            add(&mut history, generation, Action::Replace, AttemptOutcome::Refused, "bad");
        }
        assert_eq!(numbers(&history), [2, 3, 17, 18, 19]);
        assert_eq!(history.committed().map(|attempt| attempt.generation), Some(3));
        assert_eq!(history.before().map(|attempt| attempt.generation), Some(2));
        let left = std::fs::read_dir(data.path().join(SCRIPTS)).expect("a directory").count();
        assert_eq!((left, history.scripts.len()), (3, 3));
    }

    /// 1 and 2 ran, 3 failed, the server went back to 2 (as 4): from there it goes to 1, not to 3.
    #[test]
    fn what_a_rollback_has_left_is_not_gone_back_to() {
        let mut history = History::default();
        commit(&mut history, 1, "one");
        commit(&mut history, 2, "two");
        commit(&mut history, 3, "bad");
        assert_eq!(history.before().map(|attempt| attempt.generation), Some(2));
        add(&mut history, 4, Action::Rollback, AttemptOutcome::Committed, "two");
        assert_eq!(history.before().map(|attempt| attempt.generation), Some(1));
        assert_eq!(history.committed_as(3).map(|attempt| attempt.set.as_str()), Some("bad"), "by its number it is");
        assert_eq!(history.committed_as(9), None);
    }

    /// It stopped the start.
    #[test]
    fn a_script_that_can_t_be_read_costs_its_attempt() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().to_owned();
        let mut history = History::open(Some(place.clone())).expect("empty");
        (1..=2).for_each(|generation| commit(&mut history, generation, &generation.to_string()));
        let script = place.join(SCRIPTS).join(file_of(&hash_of("2")));
        std::fs::remove_file(&script).expect("it was there");
        std::fs::create_dir(&script).expect("made");
        let history = History::open(Some(place)).expect("readable");
        let has_scripts = |attempt| history.scripts_of(attempt).is_some();
        assert_eq!(history.attempts().iter().map(has_scripts).collect::<Vec<_>>(), [true, false]);
    }

    /// The next number was one above the highest.
    #[test]
    fn numbers_that_nobody_gave_are_not_read() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().to_owned();
        let mut history = History::open(Some(place.clone())).expect("empty");
        commit(&mut history, 1, "one");
        let line = std::fs::read_to_string(place.join(LINES)).expect("readable");
        let of = |number: u32| line.replace("\"generation\":1", &format!("\"generation\":{number}"));
        std::fs::write(place.join(LINES), line.clone() + &of(u32::MAX) + &of(0) + &of(GENERATION_MAX + 1))
            .expect("writable");
        let history = History::open(Some(place)).expect("readable");
        assert_eq!((numbers(&history), history.next_generation()), (vec![1], 2));
    }

    #[test]
    fn a_reload_of_what_runs_is_not_its_beginning() {
        let mut history = History::default();
        commit(&mut history, 1, "one");
        commit(&mut history, 2, "two");
        commit(&mut history, 3, "two");
        add(&mut history, 4, Action::Replace, AttemptOutcome::Refused, "bad");
        let came_with = |set: &str| history.came_with(set).map(|attempt| attempt.generation);
        assert_eq!([came_with("two"), came_with("one"), came_with("bad")], [Some(2), None, None]);
    }

    /// A directory whose sync fails after the rename: the line of an attempt that was refused stood there, and the next start ran it.
    #[test]
    fn lines_that_came_although_the_write_failed_are_taken_back() {
        fn late(place: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
            space::write_new(place, name, bytes)?;
            let is_bad = String::from_utf8_lossy(bytes).contains("\"set\":\"bad\"");
            if is_bad { Err(io::Error::other("no sync")) } else { Ok(()) }
        }
        fn always_late(place: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
            space::write_new(place, name, bytes)?;
            if name == LINES { Err(io::Error::other("no sync")) } else { Ok(()) }
        }
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut history = History::open(Some(data.path().to_owned())).expect("empty");
        history.write = late;
        for generation in 1..=2 {
            let (bad, scripts) = attempt(generation, Action::Replace, AttemptOutcome::Committed, "bad");
            let error = history.add(bad, &scripts, 5).expect_err("not synced");
            assert_eq!(error.to_string(), "no sync");
            let again = History::open(Some(data.path().to_owned())).expect("readable");
            assert_eq!(again.attempts(), history.attempts());
            if generation == 1 {
                commit(&mut history, generation, "good");
            }
        }
        history.write = always_late;
        let (bad, scripts) = attempt(3, Action::Replace, AttemptOutcome::Committed, "bad");
        let error = history.add(bad, &scripts, 5).expect_err("not synced").to_string();
        assert!(error.contains("can't be put back"), "{error}");
    }

    /// The disk is full, or the directory is gone: nothing has changed in memory either.
    #[test]
    fn what_can_t_be_written_is_not_remembered() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().join("plugins");
        let mut history = History::open(Some(place.clone())).expect("empty");
        commit(&mut history, 1, "one");
        std::fs::remove_dir_all(&place).expect("it was there");
        let (attempt, scripts) = attempt(2, Action::Replace, AttemptOutcome::Committed, "two");
        assert!(history.add(attempt, &scripts, 5).is_err());
        assert_eq!((numbers(&history), history.scripts.len()), (vec![1], 1));
    }

    #[test]
    fn what_holds_is_remembered_and_written_later() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().join("plugins");
        let mut history = History::open(Some(place.clone())).expect("empty");
        commit(&mut history, 1, "one");
        let is_full: Write = |_, _, _| Err(io::Error::from(io::ErrorKind::StorageFull));
        let can_write = std::mem::replace(&mut history.write, is_full);
        let (held, scripts) = attempt(2, Action::Replace, AttemptOutcome::Committed, "two");
        assert!(history.hold(held, &scripts, 5).is_err() && history.is_behind() && history.catch_up().is_err());
        let (refused, of_refused) = attempt(3, Action::Replace, AttemptOutcome::Committed, "three");
        assert!(history.add(refused, &of_refused, 5).is_err());
        assert_eq!(numbers(&history), [1, 2]);
        assert_eq!(numbers(&History::open(Some(place.clone())).expect("readable")), [1]);

        history.write = can_write;
        history.catch_up().expect("there is room");
        assert!(!history.is_behind());
        let again = History::open(Some(place)).expect("readable");
        assert_eq!((numbers(&again), again.scripts.len()), (vec![1, 2], 2));
    }

    /// Where so few are remembered that what was held is forgotten at once, its script is not on the disk all the same.
    #[test]
    fn what_is_held_and_forgotten_is_not_taken_for_written() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().join("plugins");
        let mut history = History::open(Some(place.clone())).expect("empty");
        commit(&mut history, 1, "one");
        commit(&mut history, 2, "two");
        let is_full: Write = |_, _, _| Err(io::Error::from(io::ErrorKind::StorageFull));
        let can_write = std::mem::replace(&mut history.write, is_full);
        for number in 3..9 {
            let (held, scripts) = attempt(number, Action::Replace, AttemptOutcome::Refused, &format!("text {number}"));
            assert!(history.hold(held, &scripts, 2).is_err());
        }
        assert_eq!((numbers(&history), history.scripts.len(), history.unwritten.len()), (vec![1, 2], 2, 0));
        history.write = can_write;
        let (again, scripts) = attempt(9, Action::Replace, AttemptOutcome::Committed, "text 3");
        history.add(again, &scripts, 2).expect("there is room");
        let again = History::open(Some(place)).expect("readable");
        assert_eq!((numbers(&again), again.scripts.len()), (vec![2, 9], 2));
    }

    #[test]
    fn what_holds_is_written_with_the_next_one() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let place = data.path().join("plugins");
        let mut history = History::open(Some(place.clone())).expect("empty");
        let is_full: Write = |_, _, _| Err(io::Error::from(io::ErrorKind::StorageFull));
        let can_write = std::mem::replace(&mut history.write, is_full);
        let (held, scripts) = attempt(1, Action::Replace, AttemptOutcome::Refused, "one");
        assert!(history.hold(held, &scripts, 5).is_err());
        history.write = can_write;
        commit(&mut history, 2, "two");
        let again = History::open(Some(place)).expect("readable");
        assert_eq!((numbers(&again), again.scripts.len()), (vec![1, 2], 2));
    }
}
