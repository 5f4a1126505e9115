//! The coordinator against shards that do as the test says: they answer at once, in the call that tells them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroad_base::ShardId;
use postroad_control::{
    Attempt, AttemptOutcome, Note, PluginsAnswer, PluginsCounters, PluginsState, PluginsWish, Trial,
};
use postroad_plugins::generations::Prepared;
use postroad_plugins::{Diagnostic, PluginName, SetHash, Source};

use super::coordinator::Coordinator;
use super::{Parts, Step, Told};
use crate::clock::Clock;
use crate::config;

/// How the shards behave.
#[derive(Default)]
struct Shards {
    /// All steps, in order: shard and what.
    steps: Vec<String>,
    /// What they were to make ready last.
    prepared: Option<Arc<Prepared>>,
    /// It says no.
    refuses: Option<ShardId>,
    /// It says nothing.
    is_silent: Option<ShardId>,
    /// The last line of the history when the first shard heard of a commit.
    written: Option<String>,
}

struct World {
    folder: tempfile::TempDir,
    data: tempfile::TempDir,
    options: config::Plugins,
    shards: Arc<Mutex<Shards>>,
    /// Versions that the server has crashed in.
    disabled: BTreeSet<SetHash>,
}

struct Server {
    coordinator: Coordinator,
    told: flume::Sender<Told>,
    notes: flume::Receiver<Note>,
    first: Option<Arc<Prepared>>,
    disabled: Arc<Mutex<BTreeSet<SetHash>>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let options = config::Plugins {
            dir: Some(folder.path().to_owned()),
            reload_timeout: Duration::from_millis(50),
            ..config::Plugins::default()
        };
        let data = tempfile::tempdir().expect("a temporary directory");
        Self { folder, data, options, shards: Arc::default(), disabled: BTreeSet::new() }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("writable");
    }

    fn start(&self) -> Result<Server, String> {
        let (told, heard) = flume::unbounded();
        let (noted, notes) = flume::bounded(9);
        let (shards, answers, place) = (Arc::clone(&self.shards), told.clone(), self.data.path().join("plugins"));
        let (lines, disabled) = (place.join("history.jsonl"), Arc::new(Mutex::new(self.disabled.clone())));
        let crashes = Arc::clone(&disabled);
        let parts = Parts {
            place: Some(place),
            options: self.options.clone(),
            shards: 2,
            clock: Clock::new(),
            tell: Box::new(move |shard, step| shards.lock().expect("one thread").take(shard, step, &answers, &lines)),
            disabled: Box::new(move || crashes.lock().expect("one thread").clone()),
            told: heard,
            notes: noted,
        };
        let orders = flume::bounded(1).1;
        let mut coordinator = Coordinator::open(parts, orders, Arc::new(PluginsCounters::default()))?;
        let first = coordinator.start()?;
        Ok(Server { coordinator, told, notes, first, disabled })
    }

    fn running(&self) -> Server {
        self.start().expect("it starts")
    }

    fn steps(&self) -> Vec<String> {
        std::mem::take(&mut self.shards.lock().expect("one thread").steps)
    }

    fn script(&self, which: &str) -> std::path::PathBuf {
        let scripts = self.data.path().join("plugins/scripts");
        let found = std::fs::read_dir(scripts).expect("a directory").map(|entry| entry.expect("readable").path());
        let is_it = |path: &std::path::PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text == which);
        found.into_iter().find(is_it).expect("it is kept")
    }
}

impl Shards {
    fn take(&mut self, shard: ShardId, step: Step, answers: &flume::Sender<Told>, lines: &Path) {
        let (word, generation) = match &step {
            Step::Prepare(prepared) => ("prepare", prepared.generation),
            Step::Discard { generation } => ("discard", *generation),
            Step::Commit { generation } => ("commit", *generation),
            Step::Promote { generation } => ("promote", *generation),
            Step::Abort { generation } => ("abort", *generation),
        };
        self.steps.push(format!("{} {word} {generation}", shard.0));
        if self.is_silent == Some(shard) {
            return;
        }
        let told = match step {
            Step::Prepare(prepared) => {
                self.prepared = Some(prepared);
                let outcome = if self.refuses == Some(shard) { Err(vec![no()]) } else { Ok(()) };
                Told::Ready { shard, generation, outcome }
            }
            Step::Discard { .. } => return,
            Step::Commit { .. } | Step::Promote { .. } | Step::Abort { .. } => {
                let text = std::fs::read_to_string(lines).unwrap_or_default();
                self.written = text.lines().last().map(str::to_owned);
                answers.send(Told::Settled { shard, generation }).expect("heard");
                Told::Committed { shard, generation }
            }
        };
        answers.send(told).expect("heard");
    }
}

fn no() -> Diagnostic {
    let plugin = PluginName::new("a").expect("a name");
    Diagnostic { file: "a.lua".into(), line: Some(7), column: None, plugin, hook: None, message: "no".into() }
}

impl Server {
    fn wish(&mut self, wish: PluginsWish) -> Result<PluginsAnswer, String> {
        let (answer, answered) = flume::bounded(1);
        self.coordinator.obey(postroad_control::PluginsOrder { wish, by: "ann".into(), answer });
        answered.try_recv().expect("each order is answered")
    }

    fn change(&mut self, wish: PluginsWish) -> Result<Attempt, String> {
        match self.wish(wish)? {
            PluginsAnswer::Done(attempt) => Ok(attempt),
            other => panic!("{other:?}"),
        }
    }

    fn reload(&mut self) -> Result<Attempt, String> {
        self.change(PluginsWish::Reload(Trial::Replace))
    }

    fn state(&mut self) -> PluginsState {
        match self.wish(PluginsWish::List) {
            Ok(PluginsAnswer::List(state)) => state,
            other => panic!("{other:?}"),
        }
    }

    /// Newest first: generation, action, outcome, note.
    fn history(&mut self) -> Vec<String> {
        let Ok(PluginsAnswer::History(attempts)) = self.wish(PluginsWish::History) else { panic!("no history") };
        let line = |attempt: &Attempt| {
            let Attempt { generation, action, outcome, note, .. } = attempt;
            format!("{generation} {} {} {note}", action.name(), outcome.name()).trim_end().to_owned()
        };
        attempts.iter().map(line).collect()
    }

    fn hear(&mut self, told: Told) {
        self.told.send(told).expect("heard");
        self.coordinator.hear_all();
    }
}

#[test]
fn without_plugins_there_is_no_generation() {
    let mut world = World::new();
    world.options.dir = None;
    let mut server = world.running();
    assert!(server.first.is_none() && server.history().is_empty());
    assert_eq!(server.state(), PluginsState::default());
}

#[test]
fn what_was_committed_runs_at_the_next_start_unless_the_folder_was_touched() {
    let mut world = World::new();
    world.options.probation = Duration::ZERO;
    world.write("a.lua", "return {}");
    let first = world.running();
    assert_eq!(first.first.expect("plugins").generation, 1);
    let mut again = world.running();
    let first = again.first.take().expect("plugins");
    assert_eq!((first.generation, first.budget), (1, None), "it is as it was");
    assert_eq!(again.history(), ["1 start committed"]);
    world.write("a.lua", "return { priority = 7 }");
    let mut touched = world.running();
    let first = touched.first.take().expect("plugins");
    assert!(first.generation == 2 && first.budget.is_some(), "it is new");
    assert_eq!(touched.history(), ["2 start committed", "1 start committed"]);
    assert_eq!(touched.state().folder, None);
}

#[test]
fn a_reload_is_ready_everywhere_then_written_then_committed() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    assert_eq!(
        server.state().folder.as_deref(),
        Some("plugins.dir has changed since it was read: a reload runs what is there")
    );
    let attempt = server.reload().expect("done");
    assert_eq!((attempt.generation, attempt.outcome, attempt.from), (2, AttemptOutcome::Committed, 1));
    assert_eq!(world.steps(), ["0 prepare 2", "1 prepare 2", "0 commit 2", "1 commit 2"]);
    let written = world.shards.lock().expect("one thread").written.clone().expect("a line");
    let written: Attempt = serde_json::from_str(&written).expect("an attempt");
    assert_eq!(written, attempt, "it was on the disk before a shard heard of it");
    let state = server.state();
    assert_eq!((state.generation, state.folder), (2, None));
}

#[test]
fn one_shard_that_says_no_leaves_everything_as_it_was() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    let before = server.state();
    world.write("a.lua", "return { priority = 7 }");
    world.shards.lock().expect("one thread").refuses = Some(ShardId(1));
    assert_eq!(server.reload().expect_err("refused"), "a.lua:7: no");
    assert_eq!(world.steps(), ["0 prepare 2", "1 prepare 2", "0 discard 2", "1 discard 2"]);
    let after = server.state();
    assert_eq!((after.generation, &after.plugins), (before.generation, &before.plugins));
    assert_eq!(
        after.folder.as_deref(),
        Some("what is in plugins.dir does not run: the last replace was refused: a.lua:7: no")
    );
    assert_eq!(server.history(), ["2 replace refused a.lua:7: no", "1 start committed"]);
    let mut again = world.running();
    assert_eq!(again.first.take().expect("plugins").generation, 1, "nobody has touched the folder since");
    world.shards.lock().expect("one thread").refuses = None;
    assert_eq!(server.reload().expect("done").generation, 3, "no number is given twice");
}

#[test]
fn a_shard_that_does_not_answer_is_not_waited_for_for_ever() {
    let world = World::new();
    let mut server = world.running();
    world.write("a.lua", "return {}");
    world.shards.lock().expect("one thread").is_silent = Some(ShardId(1));
    let why = server.reload().expect_err("refused");
    assert_eq!(why, "shard 1 did not answer in plugins.reload_timeout");
    assert_eq!(world.steps(), ["0 prepare 1", "1 prepare 1", "0 discard 1", "1 discard 1"]);
    // Its answer comes after all: nobody takes it for one to the next question.
    server.told.send(Told::Ready { shard: ShardId(1), generation: 1, outcome: Ok(()) }).expect("heard");
    assert_eq!(server.reload().expect_err("still silent"), why);
    assert_eq!(server.state().generation, 0);
}

#[test]
fn who_goes_back_goes_to_what_ran_before_and_then_further() {
    let world = World::new();
    let mut server = world.running();
    for text in ["return { priority = 1 }", "return { priority = 2 }", "return { priority = 3 }"] {
        world.write("a.lua", text);
        server.reload().expect("done");
    }
    let back = server.change(PluginsWish::Rollback(None)).expect("done");
    assert_eq!((back.generation, back.note.as_str()), (4, "back to generation 2"));
    let prepared = world.shards.lock().expect("one thread").prepared.clone().expect("asked");
    assert!(prepared.is_rollback && prepared.budget.is_none(), "nobody goes back from where he went back to");
    let back = server.change(PluginsWish::Rollback(None)).expect("done");
    assert_eq!((back.generation, back.note.as_str()), (5, "back to generation 1"));
    assert_eq!(
        server.change(PluginsWish::Rollback(None)).expect_err("the first"),
        "nothing else ran before: see the history"
    );
    let forth = server.change(PluginsWish::Rollback(Some(3))).expect("by its number");
    assert_eq!((forth.generation, forth.note.as_str()), (6, "back to generation 3"));
    assert!(server.change(PluginsWish::Rollback(Some(99))).is_err());
    // A start does not bring back what was left, for nobody has touched the folder.
    server.change(PluginsWish::Rollback(Some(1))).expect("done");
    let mut again = world.running();
    assert_eq!(again.first.take().expect("plugins").generation, 7);
    assert!(again.state().folder.expect("other").starts_with("what is in plugins.dir does not run: the last rollback"));
}

#[test]
fn a_spent_budget_goes_back_by_itself_once() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    server.reload().expect("done");
    world.steps();
    server.hear(Told::Spent { generation: 2, why: "plugin a is quarantined on shard 1".into() });
    server.hear(Told::Spent { generation: 2, why: "the other shard is late".into() });
    assert_eq!(world.steps(), ["0 prepare 3", "1 prepare 3", "0 commit 3", "1 commit 3"]);
    let history = server.history();
    assert_eq!(history[0], "3 rollback committed back to generation 1: plugin a is quarantined on shard 1");
    let note = server.notes.try_recv().expect("an operator should know");
    assert!(note.text.contains("generation 2 failed: plugin a is quarantined"), "{}", note.text);
    let mut again = world.running();
    assert_eq!(again.first.take().expect("plugins").generation, 3);
}

/// The budget of a reload of the same scripts led to an older version that had nothing to do with it, and a restart ended a probation.
#[test]
fn what_runs_goes_on_with_what_is_left_of_its_probation() {
    let mut world = World::new();
    world.options.probation = Duration::from_secs(1_000_000);
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    server.reload().expect("done");
    let budget_of_last = || world.shards.lock().expect("one thread").prepared.clone().expect("asked").budget;
    assert_eq!(budget_of_last().map(|budget| budget.probation_ms), Some(1_000_000_000));
    let first = world.running().first.expect("plugins");
    assert!((first.generation, first.is_rollback) == (2, false) && first.budget.is_some(), "it is not over");
    server.reload().expect("done");
    assert!(budget_of_last().is_some(), "it is not over");
    let mut options = world.options.clone();
    options.probation = Duration::ZERO;
    server.hear(Told::Options(Box::new(options.clone())));
    server.reload().expect("done");
    assert_eq!(budget_of_last(), None, "it is over");
    options.limits.instructions += 1;
    server.hear(Told::Options(Box::new(options.clone())));
    assert_eq!((server.state().generation, budget_of_last()), (5, None), "other limits are no other version");
    world.options.probation = Duration::ZERO;
    assert_eq!(world.running().first.expect("plugins").budget, None);
    server.change(PluginsWish::Rollback(None)).expect("done");
    world.options.probation = Duration::from_secs(1_000_000);
    assert_eq!(world.running().first.expect("plugins").budget, None, "nobody goes back from where he went back to");
}

/// It was tried once: the shards say only once that a budget is spent.
#[test]
fn what_could_not_go_back_tries_again_while_it_runs() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    server.reload().expect("done");
    world.shards.lock().expect("one thread").refuses = Some(ShardId(1));
    server.hear(Told::Spent { generation: 2, why: "it fails".into() });
    server.hear(Told::Spent { generation: 2, why: "on the other shard, too".into() });
    let note = server.notes.try_recv().expect("an operator should know");
    assert!(note.text.contains("can't go back: a.lua:7: no"), "{}", note.text);
    (0..3).for_each(|_| server.coordinator.go_back_again());
    assert!(server.notes.is_empty(), "nothing new");
    let history = server.history();
    assert_eq!(history[1], "2 replace committed", "one line for all tries: {}", history[0]);
    world.shards.lock().expect("one thread").refuses = None;
    server.coordinator.go_back_again();
    assert!(server.history()[0].ends_with("rollback committed back to generation 1: it fails"));
    assert!(server.notes.try_recv().expect("an operator should know").text.contains("went back by themselves"));
    world.steps();
    server.coordinator.go_back_again();
    assert!(world.steps().is_empty(), "it is gone");
}

/// As on a full disk. What was left must not come again with the next start, nor what was refused.
#[test]
fn what_could_not_be_written_is_written_later() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    server.reload().expect("done");
    let place = world.data.path().join("plugins");
    let aside = world.data.path().join("aside");
    std::fs::rename(&place, &aside).expect("it is there");
    server.hear(Told::Spent { generation: 2, why: "it fails".into() });
    assert_eq!(server.state().generation, 3);
    let note = server.notes.try_recv().expect("an operator should know").text;
    assert!(note.contains("went back by themselves") && note.contains("can't be written down yet"), "{note}");
    world.steps();
    world.write("a.lua", "return { priority = 8 }");
    assert!(server.reload().expect_err("refused").contains("nothing is changed"));
    assert_eq!(world.steps().last().map(String::as_str), Some("1 discard 4"));
    assert!(server.history()[0].starts_with("4 replace refused the history of plugins can't be written"));
    std::fs::rename(&aside, &place).expect("it is there");
    server.coordinator.write_history_again();
    assert_eq!(world.running().first.expect("plugins").generation, 3);
}

/// Who lets it off has it loaded: `on_load` was never called there.
#[test]
fn what_is_let_off_is_loaded_again() {
    let mut world = World::new();
    world.write("a.lua", "return {}");
    let version = Source::new(PluginName::new("a").expect("a name"), "a.lua", "return {}").hash;
    world.disabled.insert(version);
    let mut server = world.running();
    let crashes = Arc::clone(&server.disabled);
    crashes.lock().expect("one thread").clear();
    server.hear(Told::Options(Box::new(world.options.clone())));
    assert_eq!(server.state().generation, 2);
    let prepared = world.shards.lock().expect("one thread").prepared.clone().expect("it was made ready");
    assert!(prepared.disabled.is_empty());
    world.steps();
    server.hear(Told::Options(Box::new(world.options.clone())));
    assert!(world.steps().is_empty(), "once");
}

/// As on a full disk.
#[test]
fn what_can_t_be_written_at_a_start_is_refused() {
    let world = World::new();
    world.write("a.lua", "return {}");
    drop(world.running());
    world.write("a.lua", "return { priority = 7 }");
    let in_the_way = world.data.path().join("plugins/history.jsonl.new");
    std::fs::create_dir(&in_the_way).expect("writable");
    let mut server = world.running();
    assert_eq!(server.first.take().expect("what was committed runs").generation, 1);
    assert!(server.history()[0].starts_with("2 start refused the history of plugins can't be written"));
    std::fs::remove_dir(&in_the_way).expect("it is there");
    server.coordinator.write_history_again();
    assert_eq!(world.running().first.expect("it is refused").generation, 1);
}

/// The failed look was noted as another folder, so the next good one was taken for an edit, and what was left came back.
#[cfg(unix)]
#[test]
fn a_folder_that_could_not_be_read_once_brings_nothing_back() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    server.reload().expect("done");
    server.change(PluginsWish::Rollback(None)).expect("done");
    let broken = world.folder.path().join("b.lua");
    std::os::unix::fs::symlink("nowhere", &broken).expect("linked");
    assert!(server.reload().expect_err("refused").contains("b.lua can't be read"));
    server.hear(Told::Options(Box::new(world.options.clone())));
    let mut again = world.running();
    assert_eq!(again.first.take().expect("plugins").generation, 3);
    assert!(again.history()[0].contains("start refused plugins.dir: "), "{:?}", again.history());
    std::fs::remove_file(broken).expect("it was there");
    let mut again = world.running();
    assert_eq!(again.first.take().expect("plugins").generation, 3);
    world.steps();
    again.hear(Told::Options(Box::new(world.options.clone())));
    assert!(world.steps().is_empty(), "nobody has touched it");
    assert!(again.state().folder.expect("other").starts_with("what is in plugins.dir does not run: the last rollback"));
}

#[test]
fn what_can_t_go_back_says_so_and_runs_on() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    server.hear(Told::Spent { generation: 1, why: "it fails".into() });
    assert_eq!(server.state().generation, 1);
    let note = server.notes.try_recv().expect("an operator should know");
    assert!(note.text.contains("can't go back: nothing else ran before"), "{}", note.text);
}

#[test]
fn a_canary_is_promoted_or_aborted_and_nothing_else_is_tried_meanwhile() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    assert_eq!(server.change(PluginsWish::Promote).expect_err("none"), "no generation is tried");
    world.write("a.lua", "return { priority = 7 }");
    let trial = Trial::Canary { percent: 10 };
    let attempt = server.change(PluginsWish::Reload(trial)).expect("done");
    assert_eq!((attempt.generation, attempt.outcome), (2, AttemptOutcome::Trying));
    let state = server.state();
    assert_eq!((state.generation, state.trial.map(|trial| (trial.generation, trial.mode))), (1, Some((2, trial))));
    assert_eq!(server.reload().expect_err("busy"), "generation 2 is tried: promote or abort it first");
    world.steps();
    assert_eq!(server.change(PluginsWish::Promote).expect("done").generation, 2);
    assert_eq!(world.steps(), ["0 promote 2", "1 promote 2"]);
    world.write("a.lua", "return { priority = 8 }");
    assert_eq!(server.change(PluginsWish::Reload(trial)).expect("done").generation, 3);
    // After a crash the trial is over, and what answered answers, though the folder has what was tried.
    let mut again = world.running();
    assert_eq!((again.first.take().expect("plugins").generation, again.state().trial), (2, None));
    world.steps();
    server.hear(Told::Spent { generation: 3, why: "it fails".into() });
    assert_eq!(world.steps(), ["0 abort 4", "1 abort 4"]);
    let state = server.state();
    assert_eq!((state.generation, state.trial), (4, None));
    server.hear(Told::Spent { generation: 2, why: "it had another number then".into() });
    assert_eq!(server.state().generation, 5, "and goes back further");
}

/// It was read, refused for the trial, and never looked at again.
#[test]
fn what_is_edited_during_a_trial_is_seen_after_it() {
    let mut world = World::new();
    world.options.watch = config::Watch::On;
    world.write("a.lua", "return {}");
    let mut server = world.running();
    world.write("a.lua", "return { priority = 7 }");
    server.change(PluginsWish::Reload(Trial::Canary { percent: 10 })).expect("done");
    server.coordinator.look_at_folder();
    world.write("a.lua", "return { priority = 77 }");
    let mut options = world.options.clone();
    options.limits.instructions += 1;
    world.steps();
    (0..3).for_each(|_| server.coordinator.look_at_folder());
    server.hear(Told::Options(Box::new(options)));
    server.coordinator.take_limits_that_wait();
    assert!(world.steps().is_empty(), "nothing else is tried meanwhile");
    server.change(PluginsWish::Abort).expect("done");
    server.coordinator.take_limits_that_wait();
    assert_eq!(server.history()[0], "4 replace committed the limits of scripts have changed");
    server.coordinator.look_at_folder();
    assert_eq!(server.history()[0], "5 replace committed");
    assert_eq!(server.state().folder, None);
}

/// The scripts of a shadow that is promoted are made anew, with the store of the shard.
#[test]
fn a_shadow_is_promoted_by_a_reload_of_what_was_tried() {
    let world = World::new();
    let mut server = world.running();
    world.write("a.lua", "return {}");
    server.change(PluginsWish::Reload(Trial::Shadow)).expect("done");
    world.write("a.lua", "edited meanwhile");
    world.steps();
    let attempt = server.change(PluginsWish::Promote).expect("done");
    assert_eq!(world.steps(), ["0 prepare 2", "1 prepare 2", "0 commit 2", "1 commit 2"]);
    assert_eq!((attempt.generation, attempt.note.as_str()), (2, "generation 1 was tried"));
    assert_eq!(server.state().trial, None);
    assert!(world.script("return {}").exists());
}

#[test]
fn what_ran_last_does_not_load_any_more_so_what_ran_before_does() {
    let world = World::new();
    let mut server = world.running();
    for text in ["return { priority = 1 }", "return { priority = 2 }"] {
        world.write("a.lua", text);
        server.reload().expect("done");
    }
    std::fs::write(world.script("return { priority = 2 }"), "garbage").expect("writable");
    let mut again = world.running();
    assert_eq!(again.first.take().expect("plugins").generation, 3);
    let history = again.history();
    assert_eq!(history[0], "3 start committed the scripts of generation 2 are not there any more");
}

/// Not for its self-test either: the server would crash at each start.
#[test]
fn what_is_disabled_is_not_called_at_the_start() {
    let mut world = World::new();
    let text = "return { on_load = function() error('loaded') end, test = { t = function() error('tested') end } }";
    world.write("a.lua", text);
    let why = world.start().err().expect("it does not load");
    assert!(why.contains("loaded"), "{why}");
    let version = Source::new(PluginName::new("a").expect("a name"), "a.lua", text).hash;
    world.disabled.insert(version);
    let mut server = world.running();
    let first = server.first.take().expect("it runs");
    assert_eq!((first.generation, &first.disabled), (2, &world.disabled));
    server.hear(Told::Options(Box::new(world.options.clone())));
    assert!(world.steps().is_empty(), "nothing has changed");
    world.write("a.lua", &format!("{text} -- another version"));
    assert_eq!(world.running().first.expect("what was committed runs").generation, 2);
}

#[test]
fn nothing_that_loads_is_no_start() {
    let mut world = World::new();
    world.options.dir = Some("/nowhere/at/all".into());
    let why = world.start().err().expect("refused");
    assert!(why.contains("/nowhere/at/all"), "{why}");
    let why = world.start().err().expect("refused again");
    assert!(why.contains("/nowhere/at/all"), "{why}");
}

#[test]
fn options_bring_about_what_they_must_and_nothing_else() {
    let world = World::new();
    world.write("a.lua", "return {}");
    let mut server = world.running();
    server.hear(Told::Options(Box::new(world.options.clone())));
    assert!(world.steps().is_empty(), "nothing has changed");
    let mut options = world.options.clone();
    options.limits.instructions += 1;
    server.hear(Told::Options(Box::new(options.clone())));
    assert_eq!(server.history()[0], "2 replace committed the limits of scripts have changed");
    world.steps();
    // Also if what runs was put into the folder again.
    world.write("a.lua", "return { priority = 7 }");
    server.reload().expect("done");
    server.change(PluginsWish::Rollback(None)).expect("done");
    world.write("a.lua", "return {}");
    options.limits.instructions += 1;
    server.hear(Told::Options(Box::new(options.clone())));
    assert_eq!(server.history()[0], "5 replace committed the limits of scripts have changed");
    world.steps();
    options.dir = None;
    server.hear(Told::Options(Box::new(options)));
    assert_eq!((server.state().generation, server.state().plugins.len()), (6, 0), "no folder, no plugins");
}
