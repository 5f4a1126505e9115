//! The scripts that are shipped: each one has tests in the kit, and passes them under the limits of a server that was told nothing.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use postroad_base::ShardId;
use postroad_plugins::check::check;
use postroad_plugins::kit::{self, TestFile};
use postroad_plugins::{Limits, Set, Source, Stores, Vm, text};

/// Folders with scripts, below `scripts/`.
const FOLDERS: &[&str] = &["", "frames"];
/// Fewer cases than that show little of a script.
const CASES_MIN: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts")
}

/// Every folder, with its scripts.
fn sets() -> Vec<(PathBuf, Set)> {
    FOLDERS.iter().map(|name| (root().join(name), Set::read(&root().join(name)).unwrap())).collect()
}

/// All scripts.
fn scripts() -> Vec<Source> {
    let sources: Vec<Source> = sets().iter().flat_map(|(_, set)| set.sources().to_vec()).collect();
    assert!(!sources.is_empty());
    sources
}

fn test_file(source: &Source) -> PathBuf {
    Path::new(&source.file).with_file_name(format!("{}_test.lua", source.name))
}

fn read_test(source: &Source) -> Option<TestFile> {
    let path = test_file(source);
    let text = fs::read_to_string(&path).ok()?;
    Some(TestFile { file: path.display().to_string(), text })
}

/// What is wrong with one script, a line for each.
fn flaws(source: &Source) -> Vec<String> {
    let Some(file) = read_test(source) else { return vec![format!("{} has no test", source.file)] };
    let report = kit::test(source, Some(&file), &Limits::default(), |_| true);
    let broken = report.broken.iter().map(ToString::to_string);
    let failed = report.cases.iter().filter_map(|case| {
        let failure = case.failure.as_ref()?;
        Some(format!("{}: {}\n{}\n{failure}", source.name, case.name, case.printed.join("\n")))
    });
    let mut flaws: Vec<String> = broken.chain(failed).collect();
    if report.cases.len() < CASES_MIN {
        flaws.push(format!("{} has {} cases: {CASES_MIN} are the least", file.file, report.cases.len()));
    }
    flaws
}

#[test]
fn each_script_passes_its_tests() {
    let flaws: Vec<String> = scripts().iter().flat_map(flaws).collect();
    assert!(flaws.is_empty(), "\n{}\n", flaws.join("\n"));
}

/// As `postroad plugin check --strict` and `fmt-check` want them.
#[test]
fn each_script_is_checked_and_formatted() {
    let limits = Limits::default();
    let mut wrong = Vec::new();
    for (_, set) in sets() {
        for source in set.sources() {
            let test = read_test(source);
            let found = check(source, test.as_ref(), &limits);
            wrong.extend(found.iter().map(|finding| finding.diagnostic.to_string()));
            let texts = [(source.file.as_str(), &*source.text)];
            let texts = texts.into_iter().chain(test.iter().map(|test| (test.file.as_str(), test.text.as_str())));
            for (file, text) in texts {
                wrong.extend(text::flaws(text).iter().map(|flaw| format!("{file}:{}: {}", flaw.line, flaw.text)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn each_test_has_its_script() {
    for (folder, set) in sets() {
        let scripts: BTreeSet<String> = set.sources().iter().map(|source| source.name.to_string()).collect();
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(script) = name.strip_suffix("_test.lua") {
                assert!(scripts.contains(script), "{name} tests nothing");
            }
        }
    }
}

/// Who opens a script reads first what it is for, what to change, and how to try it.
#[test]
fn each_script_opens_with_what_one_has_to_know() {
    for source in scripts() {
        let head: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("--")).collect();
        let head = head.join("\n");
        // A frame is drawn at its head, and tried on a listener.
        let is_codec = source.text.contains("  codec = {");
        let hook_parts = ["-- For: ", "-- Change: ", "-- Try: "];
        let parts = if is_codec { &["-- What to change: ", "[[listener]] codec = "][..] } else { &hook_parts[..] };
        for part in parts {
            assert!(head.contains(part), "{}: the head has no line '{part}'", source.file);
        }
    }
}

#[test]
fn the_list_of_scripts_is_whole() {
    let list = fs::read_to_string(root().join("README.md")).unwrap();
    for (folder, set) in sets() {
        let below = folder.strip_prefix(root()).unwrap();
        for source in set.sources() {
            let link = format!("]({})", below.join(format!("{}.lua", source.name)).display());
            assert!(list.contains(&link), "README.md has no link {link}");
        }
    }
}

/// They stand beside each other: a folder of all of them is one set, on one shard, within its memory.
#[test]
fn all_scripts_load_together() {
    let limits = Limits::default();
    for (_, set) in sets() {
        let compiled = set.compile(&limits).unwrap();
        Vm::new(&compiled, &limits, ShardId(0), Rc::new(RefCell::new(Stores::new()))).unwrap();
    }
}
