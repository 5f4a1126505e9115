//! The test kit: `NAME_test.lua` beside `NAME.lua`, run case by case against a VM with that plugin alone.
//!
//! ```lua
//! return {
//!   ["what it shows"] = function(t)
//!     local answer = t.publish { topic = "a/b", payload = "x", client = "device-1" }
//!     t.equal(answer.action, "replace")
//!     t.contains(answer.messages, { topic = "tenants/1/a/b" })
//!   end,
//! }
//! ```
//! | function | gives |
//! |---|---|
//! | `t.publish { topic, payload, qos = 1, retain, ttl, priority, deliver_at, collapse_key, retry_attempts_max, retry_age_max, idempotency_key, content_type, properties, client = "tester", user, groups, is_application }` | `{ action = "keep"\|"replace"\|"drop"\|"refuse"\|"park", messages = { … }, reason, reason_code, note, besides = { … } }` |
//! | `t.deliver { topic, …, clients = { … } }` | the names of the clients that get it |
//! | `t.dead_letter { topic, payload, …, client = "device", reason = "attempts", attempts = 1, reason_code, error, died_at, requeues, is_push }` | `{ action = "keep"\|"requeue"\|"publish"\|"drop"\|"park", letter, note, besides }` |
//! | `t.connect { client, user, groups, clean_start }` | `{ allowed, reason, reason_code, groups = { … }, besides }` |
//! | `t.disconnect { client, user, groups, cause = "lost" }` | `{ besides }` |
//! | `t.subscribe { client, user, groups, filter, qos = 1 }` | `{ qos }` or `{ reason, reason_code }`, and `besides` |
//! | `t.now()`, `t.advance(ms)` | the time of the case, which begins at 2026-01-01T00:00:00Z and moves by `advance` only |
//! | `t.counter(name)`, `t.gauge(name)` | what the plugin has counted: 0, or nil, if nothing |
//! | `t.failures()` | `{ { hook, line, text }, … }`: what went wrong in the plugin. A case fails if it did not ask |
//! | `t.reload()` | as the server does: `on_save`, a new VM, `on_load` |
//! | `t.decode(bytes, client)` | `{ frame, size }`, `{ needed }` or `{ broken, detail }`; of the plugin's codec |
//! | `t.encode { kind, tag, command, topic, payload, reason, … }` | the bytes |
//! | `t.every_split(bytes, frames, client)` | the frames of a stream that says the same wherever it is cut; each must have what is expected of it |
//! | `t.equal(got, expected)`, `t.ok(value, what)`, `t.contains(whole, part)`, `t.matches(text, pattern)`, `t.raises(call, pattern)`, `t.fail(text)` | nothing; they fail the case |
//! | `t.print(…)`, `t.show(value)` | a line below the case; a value as text |
//!
//! Invariants
//! - Each case has a VM, stores, a clock and a sandbox of its own. `postroad.store` in a test is that of the plugin.
//! - Nothing here reads a clock or a file: texts come in, [`Report`]s go out.

mod case;
mod codecs;
mod messages;
mod record;
mod world;

#[cfg(test)]
mod tests;

use case::{Case, Wrong};
use world::World;

use crate::{Compiled, Diagnostic, Limits, PluginName, Set, Source};

/// The tests of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFile {
    /// Where it was read: shown in messages.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// What one case has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// Its name; of a self-test of the plugin with `self-test: ` before it.
    pub name: String,
    /// What it printed.
    pub printed: Vec<String>,
    /// How it failed, if it did.
    pub failure: Option<Diagnostic>,
}

/// What the tests of one plugin have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which plugin.
    pub plugin: PluginName,
    /// Its cases, and those of its own table `test`.
    pub cases: Vec<CaseReport>,
    /// Why cases could not be run at all.
    pub broken: Vec<Diagnostic>,
}

impl Report {
    /// Whether everything went well.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.cases.iter().all(|case| case.failure.is_none())
    }
}

/// Runs the self-tests of a plugin, and the cases of its test file, if it has one. `wanted` says which, by their names.
pub fn test(source: &Source, file: Option<&TestFile>, limits: &Limits, wanted: impl Fn(&str) -> bool) -> Report {
    let mut report = Report { plugin: source.name.clone(), cases: Vec::new(), broken: Vec::new() };
    let set = Set::from_sources(vec![source.clone()]).expect("one plugin has one name");
    let compiled = match set.compile(limits) {
        Ok(compiled) => compiled,
        Err(flaws) => return Report { broken: flaws, ..report },
    };
    if let Err(flaws) = self_test(&compiled, limits, &wanted, &mut report) {
        report.broken = flaws;
        return report;
    }
    let Some(file) = file else { return report };
    match case::cases(file, &source.name) {
        Ok(cases) => {
            let cases = cases.iter().filter(|case| wanted(&case.name));
            let ran = cases.map(|case| run(source, file, case, &compiled, limits)).collect::<Vec<_>>();
            report.cases.extend(ran);
        }
        Err(wrong) => report.broken.push(diagnostic(source, &file.file, wrong)),
    }
    report
}

/// The names of all functions of `t`.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    world::QUESTION_NAMES.iter().chain(world::ASSERTIONS).copied()
}

/// What is wrong with a test file, without running a case.
pub(crate) fn flaws(source: &Source, file: &TestFile) -> Vec<Diagnostic> {
    let wrong = case::cases(file, &source.name).err();
    wrong.into_iter().map(|wrong| diagnostic(source, &file.file, wrong)).collect()
}

fn self_test(
    compiled: &Compiled,
    limits: &Limits,
    wanted: &impl Fn(&str) -> bool,
    report: &mut Report,
) -> Result<(), Vec<Diagnostic>> {
    for outcome in World::new(compiled, limits)?.self_test() {
        let name = format!("self-test: {}", outcome.name);
        if wanted(&name) {
            report.cases.push(CaseReport { name, printed: Vec::new(), failure: outcome.failure });
        }
    }
    Ok(())
}

fn run(source: &Source, file: &TestFile, case: &Case, compiled: &Compiled, limits: &Limits) -> CaseReport {
    let name = case.name.clone();
    let mut world = match World::new(compiled, limits) {
        Ok(world) => world,
        Err(mut flaws) => return CaseReport { name, printed: Vec::new(), failure: flaws.pop() },
    };
    let ran = case::run(file, &source.name, case, &mut world);
    let failure = match ran {
        Ok(()) => unseen_failure(source, &world),
        Err(wrong) => Some(diagnostic(source, &file.file, wrong)),
    };
    CaseReport { name, printed: world.take_printed(), failure }
}

/// An error of the plugin that the case did not expect.
fn unseen_failure(source: &Source, world: &World) -> Option<Diagnostic> {
    let unseen = world.unseen_failures();
    let failure = unseen.first()?;
    let more = if unseen.len() > 1 { format!(" (and {} more)", unseen.len() - 1) } else { String::new() };
    Some(Diagnostic {
        file: source.file.clone(),
        line: failure.line,
        column: None,
        plugin: source.name.clone(),
        hook: Some(failure.hook.name().to_owned()),
        message: format!("{}{more}; if the case expects that, it asks t.failures()", failure.text),
    })
}

fn diagnostic(source: &Source, file: &str, wrong: Wrong) -> Diagnostic {
    let Wrong { line, text } = wrong;
    let plugin = source.name.clone();
    Diagnostic { file: file.to_owned(), line, column: None, plugin, hook: None, message: text }
}
