//! The snippets of the plugin guide are run, so that the guide can't rot.
//!
//! A fence of Lua says what it is:
//!
//! | fence | what happens |
//! |---|---|
//! | `lua plugin NAME` | it loads, passes its self-tests, and `postroad plugin check --strict` finds nothing |
//! | `lua test NAME` | its cases pass, with the plugin of that name that stands last before it |
//! | `lua broken NAME` | it does not load, and the guide shows, word for word, what is said of it |
//! | `lua failing NAME` | a test of which each case fails, with that plugin; the guide shows what is said |

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use postroad_plugins::check::check;
use postroad_plugins::kit::{self, Report, TestFile};
use postroad_plugins::{Limits, PluginName, Source};

/// Documents with snippets.
const DOCUMENTS: &[&str] = &["docs/plugins.md", "scripts/README.md"];

struct Snippet {
    document: &'static str,
    /// Where it begins, from 1 on.
    line: usize,
    kind: String,
    name: String,
    text: String,
}

impl Snippet {
    fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }
}

fn read(document: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap()
}

/// Every fence of Lua of a document.
fn snippets(document: &'static str) -> Vec<Snippet> {
    let text = read(document);
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((line, text)) = lines.next() {
        let Some(about) = text.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
        let mut words = about.split_whitespace();
        if words.next() == Some("lua") {
            let mut word = || words.next().unwrap_or_default().to_owned();
            let text = body.join("\n") + "\n";
            found.push(Snippet { document, line: line + 1, kind: word(), name: word(), text });
        }
    }
    found
}

fn ran(plugin: &Source, file: Option<&TestFile>) -> Report {
    kit::test(plugin, file, &Limits::default(), |_| true)
}

/// What is said, as the guide has it: the first line of each thing.
fn said(report: &Report) -> Vec<String> {
    let failures = report.cases.iter().filter_map(|case| case.failure.as_ref());
    let all = report.broken.iter().chain(failures).map(ToString::to_string);
    all.map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
}

/// Runs one; what is wrong with it.
fn flaws(snippet: &Snippet, plugins: &mut BTreeMap<String, Source>, guide: &str) -> Vec<String> {
    let Some(name) = PluginName::new(&snippet.name) else {
        return vec!["the fence says no kind and name: see the head of this test".to_owned()];
    };
    let source = Source::new(name, format!("{}.lua", snippet.name), snippet.text.as_str());
    let test = TestFile { file: format!("{}_test.lua", snippet.name), text: snippet.text.clone() };
    let with_plugin = |expects_good: bool| {
        let Some(plugin) = plugins.get(&snippet.name) else {
            return vec!["its plugin does not stand before it".into()];
        };
        let report = ran(plugin, Some(&test));
        match expects_good {
            _ if report.cases.is_empty() => vec!["it has no case".to_owned()],
            true => said(&report),
            false if report.cases.iter().any(|case| case.failure.is_none()) => vec!["a case passes".to_owned()],
            false => not_shown(&report, guide),
        }
    };
    match &*snippet.kind {
        "plugin" => {
            let mut flaws = said(&ran(&source, None));
            flaws.extend(check(&source, None, &Limits::default()).iter().map(|found| found.diagnostic.to_string()));
            plugins.insert(snippet.name.clone(), source);
            flaws
        }
        "broken" => not_shown(&ran(&source, None), guide),
        "test" => with_plugin(true),
        "failing" => with_plugin(false),
        other => vec![format!("'{other}' is no kind of fence")],
    }
}

fn not_shown(report: &Report, guide: &str) -> Vec<String> {
    let said = said(report);
    if said.is_empty() {
        return vec!["nothing is wrong with it".to_owned()];
    }
    said.into_iter().filter(|line| !guide.contains(line.as_str())).map(|line| format!("not shown: {line}")).collect()
}

#[test]
fn every_snippet_does_what_its_fence_says() {
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let guide = read(document);
        let mut plugins = BTreeMap::new();
        for snippet in snippets(document) {
            let flaws = flaws(&snippet, &mut plugins, &guide);
            wrong.extend(flaws.into_iter().map(|flaw| format!("{}: {flaw}", snippet.place())));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_guide_has_snippets_of_each_kind() {
    let found = snippets(DOCUMENTS[0]);
    for kind in ["plugin", "test", "broken"] {
        assert!(found.iter().any(|snippet| snippet.kind == kind), "none is '{kind}'");
    }
}
