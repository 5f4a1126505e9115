//! `postroad plugin check`: what is wrong with a plugin, or probably not meant, without any message.
//!
//! Loading finds what Lua and a plugin's table can say. Names are looked up in the text ([`crate::text`]), since a script only meets a wrong one when it
//! comes there: those of the API and of libraries are known by the tables that install them, so a new entry is known here, too.

use std::collections::BTreeSet;

use base::filter_matches;
use postroad_base as base;

use crate::api::{ENTRIES, FIELDS, METHODS, Of};
use crate::diagnostic::nearest;
use crate::kit::{self, TestFile};
use crate::text::{How, Part, Use, uses};
use crate::{Compiled, Diagnostic, Hook, Limits, PluginName, Set, Source, Vm, codec, sandbox};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It can't work.
    Error,
    /// It works, and was probably meant otherwise.
    Warning,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where, and what.
    pub diagnostic: Diagnostic,
}

impl std::fmt::Display for Finding {
    /// `scripts/x.lua:12:5: error: text`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Diagnostic { file, line, column, hook, message, .. } = &self.diagnostic;
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{file}:{}:{}: {word}: ", line.unwrap_or(1), column.unwrap_or(1))?;
        if let Some(hook) = hook {
            write!(f, "{hook}: ")?;
        }
        f.write_str(message)
    }
}

/// Everything that is found in a plugin and its tests, in the order of the lines.
pub fn check(source: &Source, test: Option<&TestFile>, limits: &Limits) -> Vec<Finding> {
    let mut findings = Findings { plugin: source.name.clone(), found: Vec::new() };
    let set = Set::from_sources(vec![source.clone()]).expect("one plugin has one name");
    match set.compile(limits) {
        Ok(compiled) => check_hooks(source, &compiled, limits, &mut findings),
        Err(flaws) => findings.add_all(flaws),
    }
    check_names(&source.file, &source.text, &mut findings);
    if let Some(test) = test {
        findings.add_all(kit::flaws(source, test));
        check_names(&test.file, &test.text, &mut findings);
    }
    let Findings { mut found, .. } = findings;
    found.sort_by_key(|finding| {
        let Diagnostic { file, line, column, .. } = &finding.diagnostic;
        (*file != source.file, *line, *column)
    });
    found
}

struct Findings {
    plugin: PluginName,
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, severity: Severity, file: &str, at: Option<(u32, u32)>, message: String) {
        let (line, column) = at.unzip();
        let (file, plugin) = (file.to_owned(), self.plugin.clone());
        self.found
            .push(Finding { severity, diagnostic: Diagnostic { file, line, column, plugin, hook: None, message } });
    }

    fn add_all(&mut self, flaws: Vec<Diagnostic>) {
        self.found.extend(flaws.into_iter().map(|diagnostic| Finding { severity: Severity::Error, diagnostic }));
    }
}

// Names.

/// Of which kind the first argument of a hook is, by its path in the plugin's table.
const SUBJECTS: &[(Hook, &str, Of)] = &[
    (Hook::Inbound, "@inbound", Of::MESSAGE),
    (Hook::Route, "@message", Of::MESSAGE),
    (Hook::Deliver, "@delivery", Of::MESSAGE),
    (Hook::DeadLetter, "@letter", Of::LETTER),
    (Hook::Connect, "@client", Of::CONNECT),
    (Hook::Disconnect, "@gone", Of::GONE),
    (Hook::Subscribe, "@subscription", Of::SUBSCRIPTION),
];

fn subject_of(keys: &[&str]) -> Option<&'static str> {
    let ([key] | [key, "run"]) = keys else { return None };
    SUBJECTS.iter().find(|(hook, ..)| hook.name() == *key).map(|(_, subject, _)| *subject)
}

/// What Lua has and plugins do not, and what to take instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("print", "a plugin writes to the log: postroad.log.info"),
    ("require", "a plugin is one file"),
    ("load", "a plugin loads no code"),
    ("loadstring", "a plugin loads no code"),
    ("loadfile", "a plugin loads no code"),
    ("dofile", "a plugin loads no code"),
    ("package", "a plugin is one file"),
    ("io", "a plugin sees no files"),
    ("os", "a plugin sees no files, processes or clock; the time is postroad.now()"),
    ("debug", "it opens the sandbox"),
];

fn check_names(file: &str, text: &str, findings: &mut Findings) {
    let uses = uses(text, subject_of);
    let is_written = |found: &&Use<'_>| found.how == How::Written && found.path.len() == 1;
    let written: BTreeSet<&str> = uses.iter().filter(is_written).map(|found| found.path[0].name).collect();
    let mut told = BTreeSet::new();
    for found in &uses {
        if let Some((severity, part, message)) = judged(found, &written)
            && (found.how != How::Written || told.insert(part.name))
        {
            findings.add(severity, file, Some((part.line, part.column)), message);
        }
    }
}

type Judged<'a> = Option<(Severity, Part<'a>, String)>;

fn judged<'a>(found: &Use<'a>, written: &BTreeSet<&str>) -> Judged<'a> {
    let first = found.path[0];
    if found.how == How::Unused {
        let text = format!("local '{}' is never read; if that is meant, begin its name with '_'", first.name);
        return Some((Severity::Warning, first, text));
    }
    if let Some((hook, _, of)) = SUBJECTS.iter().find(|(_, subject, _)| *subject == first.name) {
        return judged_field(found, *hook, *of);
    }
    if first.name == "postroad" {
        return judged_api(found);
    }
    let is_library = sandbox::names().any(|(library, _)| library == Some(first.name));
    if is_library {
        return judged_library(found);
    }
    judged_free(found, written)
}

/// `message.topic`, `message:also`.
fn judged_field<'a>(found: &Use<'a>, hook: Hook, of: Of) -> Judged<'a> {
    let part = *found.path.get(1)?;
    let field = FIELDS.iter().find(|field| field.name == part.name && field.read.has(of));
    let has_method = METHODS.iter().any(|method| method.name == part.name && method.of.has(of));
    let is_set = found.how == How::Written && found.path.len() == 2;
    if is_set && (hook == Hook::Deliver || field.is_some_and(|field| !field.set.has(of))) {
        return Some((Severity::Error, part, format!("'{}' can't be set in {}", part.name, hook.name())));
    }
    if field.is_some() || has_method && !is_set {
        return None;
    }
    let fields = FIELDS.iter().filter(|field| field.read.has(of)).map(|field| field.name);
    let names = fields.chain(METHODS.iter().filter(|method| method.of.has(of)).map(|method| method.name));
    Some((
        Severity::Error,
        part,
        unknown(&format!("field '{}' of {}'s argument", part.name, hook.name()), part.name, "", names),
    ))
}

/// `postroad.now`, `postroad.json.encode`.
fn judged_api<'a>(found: &Use<'a>) -> Judged<'a> {
    let part = *found.path.get(1)?;
    if found.how == How::Written {
        return Some((Severity::Error, part, "'postroad' can't be changed".to_owned()));
    }
    if ENTRIES.iter().any(|entry| entry.name == part.name) {
        return None;
    }
    let in_group = |entry: &&crate::api::Entry| entry.name.split_once('.').is_some_and(|(group, _)| group == part.name);
    if ENTRIES.iter().find(in_group).is_none() {
        let names = ENTRIES.iter().map(|entry| entry.name.split('.').next().unwrap_or(entry.name));
        return Some((
            Severity::Error,
            part,
            unknown(&format!("'postroad.{}'", part.name), part.name, "postroad.", names),
        ));
    }
    let leaf = *found.path.get(2)?;
    let prefix = format!("postroad.{}.", part.name);
    let leaves =
        || ENTRIES.iter().filter(in_group).filter_map(|entry| entry.name.split_once('.')).map(|(_, leaf)| leaf);
    if leaves().any(|known| known == leaf.name) {
        return None;
    }
    Some((Severity::Error, leaf, unknown(&format!("'{prefix}{}'", leaf.name), leaf.name, &prefix, leaves())))
}

/// `string.find`.
fn judged_library<'a>(found: &Use<'a>) -> Judged<'a> {
    let (library, part) = (found.path[0].name, *found.path.get(1)?);
    if found.how == How::Written {
        return Some((Severity::Error, part, format!("'{library}' can't be changed")));
    }
    let names = || sandbox::names().filter(|(of, _)| *of == Some(library)).map(|(_, name)| name);
    if names().any(|name| name == part.name) {
        return None;
    }
    let prefix = format!("{library}.");
    Some((Severity::Error, part, unknown(&format!("'{prefix}{}'", part.name), part.name, &prefix, names())))
}

fn judged_free<'a>(found: &Use<'a>, written: &BTreeSet<&str>) -> Judged<'a> {
    let first = found.path[0];
    let globals = || {
        sandbox::names().map(|(library, name)| library.unwrap_or(name)).chain(["postroad", "_G", "_VERSION", "_ENV"])
    };
    if globals().any(|name| name == first.name) {
        return None;
    }
    if let Some((_, why)) = FORBIDDEN.iter().find(|(name, _)| *name == first.name) {
        return Some((Severity::Error, first, format!("'{}' is not there: {why}", first.name)));
    }
    if written.contains(first.name) {
        let is_here = found.how == How::Written && found.path.len() == 1;
        let text = || format!("'{}' is a global of the plugin: is a 'local' missing?", first.name);
        return is_here.then(|| (Severity::Warning, first, text()));
    }
    Some((Severity::Error, first, unknown(&format!("name '{}'", first.name), first.name, "", globals())))
}

fn unknown<'a>(what: &str, name: &str, prefix: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(meant) => format!("unknown {what}: did you mean '{prefix}{meant}'?"),
        None => format!("unknown {what}"),
    }
}

// Hooks.

fn check_hooks(source: &Source, compiled: &Compiled, limits: &Limits, findings: &mut Findings) {
    let Some((mut vm, hooks, filters)) = hooks_of(source, compiled, limits) else { return };
    let does_something = |hook: &Hook| !matches!(hook, Hook::Save | Hook::Load | Hook::Test);
    let codec = codec::of_plugin(&mut vm, &source.name);
    if !hooks.iter().any(does_something) && codec.is_none() {
        findings.add(
            Severity::Warning,
            &source.file,
            None,
            "the plugin has no hook: nobody will ever ask it".to_owned(),
        );
    }
    if let Some(Err(flaw)) = codec {
        findings.add_all(vec![flaw]);
    }
    if hooks.contains(&Hook::Save) != hooks.contains(&Hook::Load) {
        let text = "'on_save' and 'on_load' belong together: what one gives the other one takes";
        findings.add(Severity::Warning, &source.file, None, text.to_owned());
    }
    for (hook, filters) in filters {
        check_filters(source, hook, &filters, findings);
    }
}

type Hooks = (Vm, Vec<Hook>, Vec<(Hook, Vec<String>)>);

fn hooks_of(source: &Source, compiled: &Compiled, limits: &Limits) -> Option<Hooks> {
    let stores = std::rc::Rc::default();
    let vm = Vm::new(compiled, limits, base::ShardId(0), stores).ok()?;
    let figures = vm.figures().pop()?;
    let hooks: Vec<Hook> = figures.hooks.iter().map(|(hook, _)| *hook).collect();
    let filters = hooks.iter().map(|hook| (*hook, vm.filters_of(&source.name, *hook))).collect();
    Some((vm, hooks, filters))
}

/// Filters that say nothing that others do not say, and hooks that are asked about everything where that costs.
fn check_filters(source: &Source, hook: Hook, filters: &[String], findings: &mut Findings) {
    let mut warn = |word: &str, text: String| {
        let at = position(&source.text, word).or_else(|| position(&source.text, hook.name()));
        findings.add(Severity::Warning, &source.file, at, format!("{}: {text}", hook.name()));
    };
    if hook == Hook::Deliver && (filters.is_empty() || filters.iter().any(|filter| filter == "#")) {
        warn(hook.name(), "it is asked about every message on every shard; say which ones by 'filters'".to_owned());
    }
    for (place, filter) in filters.iter().enumerate() {
        let covers = |(other, wider): (usize, &String)| {
            other != place && covers(wider, filter) && (wider != filter || other < place)
        };
        if let Some((_, wider)) = filters.iter().enumerate().find(|pair| covers(*pair)) {
            warn(filter, format!("filter \"{filter}\" adds nothing: \"{wider}\" matches all that it does"));
        }
        if filter.split('/').any(|level| level.len() > 1 && level.starts_with(['+', '#'])) {
            warn(filter, format!("filter \"{filter}\": '+' and '#' stand alone between slashes"));
        }
    }
}

/// Whether everything that `filter` matches is matched by `wider`: a filter read as a topic is matched by those that are wider. `+` is no level's name, and a `#` at
/// the end stands for any.
fn covers(wider: &str, filter: &str) -> bool {
    let is_rooted = filter.starts_with(['+', '#']) == wider.starts_with(['+', '#']) || !filter.starts_with('$');
    let ends_open = filter == "#" || filter.ends_with("/#");
    is_rooted && filter_matches(wider, filter) && (!ends_open || wider == "#" || wider.ends_with("/#"))
}

/// Line and column of a text in quotes, or of a word, where it stands first.
fn position(text: &str, word: &str) -> Option<(u32, u32)> {
    let quoted = [format!("\"{word}\""), format!("'{word}'"), word.to_owned()];
    let at = quoted.iter().find_map(|quoted| text.find(quoted.as_str()))?;
    let head = &text[..at];
    let column = at - head.rfind('\n').map_or(0, |newline| newline + 1);
    Some((1 + head.matches('\n').count() as u32, 1 + column as u32))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn found(text: &str, test: Option<&str>) -> String {
        let source = Source::new(PluginName::new("demo").expect("a name"), "demo.lua", text);
        let test = test.map(|text| TestFile { file: "demo_test.lua".to_owned(), text: text.to_owned() });
        check(&source, test.as_ref(), &Limits::default()).iter().map(|finding| format!("{finding}\n")).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "as expect-test is used")]
    fn check_text(text: &str, expected: Expect) {
        expected.assert_eq(&found(text, None));
    }

    #[test]
    fn what_lua_and_the_table_say_is_an_error() {
        check_text(
            "return {\n  rout = function() end\n}",
            expect![[r#"
            demo.lua:2:1: error: rout: unknown key 'rout': did you mean 'route'?
        "#]],
        );
        check_text(
            "return {\n  route = = 1\n}",
            expect![[r#"
            demo.lua:2:1: error: unexpected symbol near '='
        "#]],
        );
        check_text(
            "return { limits = { millis = 1000000 }, route = { filters = { 'a/#/b' }, run = function() end } }",
            expect![[r#"
            demo.lua:1:1: error: limits: 'millis' must be a whole number from 1 to 20: plugins can only lower the server's limits
            demo.lua:1:1: error: route: filter 1: wildcard in the wrong place: '+' must fill a level, '#' the last one
        "#]],
        );
    }

    #[test]
    fn names_that_nobody_knows_are_errors() {
        check_text(
            "local log = postroad.log\nlocal function f(x)\n  print(x, os.time(), string.dump(x), strin.len(x), string.fnd(x))\n\
             log.inf(postroad.pubish, postroad.json.encod, postroad.json.encode)\n  postroad.x = 1\n  string.y = 2\nend\n\
             return { route = function(m) f(m.topc, m.payload.x) m.qos = m.id m.id = 1 m:also {} m:alsso {} end,\n\
             on_deliver = { filters = { 'a' }, run = function(m) m.topic = 'x' end }, on_dead_letter = function(l) l.reason = l.attempts end }",
            expect![[r#"
                demo.lua:3:3: error: 'print' is not there: a plugin writes to the log: postroad.log.info
                demo.lua:3:12: error: 'os' is not there: a plugin sees no files, processes or clock; the time is postroad.now()
                demo.lua:3:30: error: unknown 'string.dump'
                demo.lua:3:39: error: unknown name 'strin': did you mean 'string'?
                demo.lua:3:60: error: unknown 'string.fnd': did you mean 'string.find'?
                demo.lua:4:5: error: unknown 'postroad.log.inf': did you mean 'postroad.log.info'?
                demo.lua:4:18: error: unknown 'postroad.pubish': did you mean 'postroad.publish'?
                demo.lua:4:40: error: unknown 'postroad.json.encod': did you mean 'postroad.json.encode'?
                demo.lua:5:12: error: 'postroad' can't be changed
                demo.lua:6:10: error: 'string' can't be changed
                demo.lua:8:34: error: unknown field 'topc' of route's argument: did you mean 'topic'?
                demo.lua:8:68: error: 'id' can't be set in route
                demo.lua:8:87: error: unknown field 'alsso' of route's argument: did you mean 'also'?
                demo.lua:9:55: error: 'topic' can't be set in on_deliver
                demo.lua:9:105: error: 'reason' can't be set in on_dead_letter
            "#]],
        );
    }

    #[test]
    fn what_was_probably_not_meant_is_a_warning() {
        check_text(
            "count = 0\nlocal function route(m) count = count + 1 end\nreturn {\n  on_save = function() return count end,\n}",
            expect![[r#"
                demo.lua:1:1: warning: the plugin has no hook: nobody will ever ask it
                demo.lua:1:1: warning: 'on_save' and 'on_load' belong together: what one gives the other one takes
                demo.lua:1:1: warning: 'count' is a global of the plugin: is a 'local' missing?
                demo.lua:2:16: warning: local 'route' is never read; if that is meant, begin its name with '_'
            "#]],
        );
        check_text(
            "return {\n  on_deliver = function(m, c) end,\n  route = { filters = { 'a/b', 'a/+', '$SYS/#', '#', 'c/#' }, run = function(m) end },\n}",
            expect![[r##"
                demo.lua:2:3: warning: on_deliver: it is asked about every message on every shard; say which ones by 'filters'
                demo.lua:3:25: warning: route: filter "a/b" adds nothing: "#" matches all that it does
                demo.lua:3:32: warning: route: filter "a/+" adds nothing: "#" matches all that it does
                demo.lua:3:54: warning: route: filter "c/#" adds nothing: "#" matches all that it does
            "##]],
        );
    }

    #[test]
    fn what_a_codec_says_is_looked_at() {
        check_text(
            "return { codec = { framing = { kind = 'fixd' } } }",
            expect![[r#"
            demo.lua:1:1: error: codec: framing: unknown key 'kind': known are fixed, delimiter, length, plus, fields, longest
        "#]],
        );
    }

    #[test]
    fn a_good_plugin_has_nothing_to_say() {
        let plugin = "local seen = 0\nreturn {\n  route = function(message)\n    seen = seen + 1\n    message.topic = 'a/' .. message.topic\n    \
                      if message:property('x') then return postroad.drop('x') end\n  end,\n}\n";
        let test = "return { ['x'] = function(t) t.equal(t.publish { topic = 'a' }.action, 'replace') end }";
        assert_eq!(found(plugin, Some(test)), "");
    }

    #[test]
    fn tests_are_checked_too() {
        let plugin = "return { route = function(m) return postroad.drop(m.topic) end }";
        expect![[r#"
            demo_test.lua:1:1: error: a test file returns functions under names; ["b"] is a number
            demo_test.lua:2:24: error: unknown name 'pubish'
        "#]]
        .assert_eq(&found(plugin, Some("return {\n  a = function(t) t.ok(pubish) end,\n  b = 1,\n}")));
        expect![[r#"
            demo_test.lua:2:1: error: unexpected symbol near <eof>
        "#]]
        .assert_eq(&found(plugin, Some("return {\n")));
    }

    #[test]
    fn wider_filters_are_known() {
        for (wider, filter) in
            [("#", "a"), ("#", "a/#"), ("a/#", "a"), ("a/#", "a/b/#"), ("+/b", "a/b"), ("a/+", "a/+"), ("+/#", "a/#")]
        {
            assert!(covers(wider, filter), "{wider} {filter}");
        }
        for (wider, filter) in [("a", "#"), ("a/+", "a/#"), ("a/b", "a/+"), ("#", "$SYS/#"), ("+/b", "a/c")] {
            assert!(!covers(wider, filter), "{wider} {filter}");
        }
    }
}
