//! The ledger of the specification's normative statements (docs/mqtt-statements.md) against the tests that cite them.
//!
//! A citation is `[MQTT-x.y.z-n]` in test code, for MQTT 3.1.1 (its numbers are others) with `3.1.1:` or `of 3.1.1` in
//! front of it (then for the rest of the line) or `of 3.1.1` behind it. Test code is every `.rs` file in a folder `tests`, every `tests.rs`, and what follows `#[cfg(test)]` elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V5,
    V3,
}

type Id = (Version, String);

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Covered,
    Untested,
    Exempt,
    /// The same as this statement of 5.0, and tested with it.
    As(String),
}

struct Ledger {
    statements: BTreeMap<Id, Status>,
    /// Only a client can violate these.
    of_clients: BTreeSet<Id>,
}

/// Statements and the files that cite them.
type Cited = BTreeMap<Id, BTreeSet<PathBuf>>;

impl Ledger {
    fn knows(&self, id: &Id) -> bool {
        self.statements.contains_key(id) || self.of_clients.contains(id)
    }

    /// A number that only 3.1.1 has means 3.1.1.
    fn resolve(&self, id: Id) -> Id {
        let old = (Version::V3, id.1.clone());
        if !self.knows(&id) && self.knows(&old) { old } else { id }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn path() -> PathBuf {
    root().join("docs/mqtt-statements.md")
}

fn read_ledger() -> Ledger {
    let text = fs::read_to_string(path()).expect("the ledger is in the repository");
    let mut ledger = Ledger { statements: BTreeMap::new(), of_clients: BTreeSet::new() };
    let mut version = None;
    for line in text.lines() {
        match line {
            "## MQTT 5.0" => version = Some(Version::V5),
            "## MQTT 3.1.1" => version = Some(Version::V3),
            _ => {}
        }
        let Some(version) = version else { continue };
        if let Some(ids) = line.strip_prefix("Only a client can violate: ") {
            ledger.of_clients.extend(ids.trim_end_matches('.').split(", ").map(|id| (version, id.to_owned())));
        }
        let Some(row) = line.strip_prefix("| ").filter(|row| row.starts_with(|c: char| c.is_ascii_digit())) else {
            continue;
        };
        let [id, _, status] = row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>()[..] else {
            panic!("not of the form | id | what | status |: {line}");
        };
        let old = ledger.statements.insert((version, id.to_owned()), parse_status(status));
        assert_eq!(old, None, "{id} stands twice");
    }
    ledger
}

fn parse_status(text: &str) -> Status {
    match text {
        "covered" => Status::Covered,
        "untested" => Status::Untested,
        _ if text.strip_prefix("exempt: ").is_some_and(|reason| reason.len() > 5) => Status::Exempt,
        _ => Status::As(text.strip_prefix("as ").unwrap_or_else(|| panic!("unknown status {text:?}")).to_owned()),
    }
}

/// All citations of a text. `[A] to [B]` cites also what lies between.
fn citations(text: &str) -> Vec<Id> {
    text.lines().flat_map(citations_of_line).collect()
}

fn citations_of_line(line: &str) -> Vec<Id> {
    let mut found: Vec<Id> = Vec::new();
    let mut of_v3 = false;
    let parts: Vec<&str> = line.split("[MQTT-").collect();
    for (before, part) in parts.iter().zip(&parts[1..]) {
        let Some((id, after)) = part.split_once(']').filter(|(id, _)| is_id(id)) else { continue };
        let before = before.trim_end_matches('`');
        of_v3 |= before.ends_with("of 3.1.1 ") || before.ends_with("3.1.1: ");
        let this_v3 = of_v3 || after.trim_start_matches(['`', ' ']).starts_with("of 3.1.1");
        let version = if this_v3 { Version::V3 } else { Version::V5 };
        if let Some((_, first)) = found.last().filter(|_| before.trim_end_matches('`').ends_with("] to ")) {
            found.extend(between(first, id).into_iter().map(|id| (version, id)));
        }
        found.push((version, id.to_owned()));
    }
    found
}

/// Chapter and number; not a whole section.
fn is_id(text: &str) -> bool {
    let Some((chapter, number)) = text.rsplit_once('-') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    chapter.split(['.', '-']).all(digits) && digits(number)
}

fn between(first: &str, last: &str) -> Vec<String> {
    let number = |id: &str| id.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok()).unwrap_or(0);
    let chapter = last.rsplit_once('-').map_or("", |(chapter, _)| chapter);
    assert!(first.starts_with(chapter), "from {first} to {last} is no range");
    (number(first) + 1..number(last)).map(|number| format!("{chapter}-{number}")).collect()
}

/// The part of a source file that is test code.
fn test_part<'a>(path: &Path, text: &'a str) -> &'a str {
    let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    if is_test { text } else { text.find("#[cfg(test)]").map_or("", |start| &text[start..]) }
}

fn collect(folder: &Path, under: &Path, cited: &mut Cited) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name());
        let below = under.join(&name);
        let hidden = name.to_string_lossy().starts_with('.') || name == "target" || name == "node_modules";
        if path.is_dir() && !hidden {
            collect(&path, &below, cited);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && below != Path::new("base/tests/statements.rs")
        {
            let text = fs::read_to_string(&path).expect("source files are UTF-8");
            for id in citations(test_part(&below, &text)) {
                cited.entry(id).or_default().insert(below.clone());
            }
        }
    }
}

#[test]
fn what_the_ledger_calls_covered_is_cited_by_a_test() {
    let mut ledger = read_ledger();
    let mut found = BTreeMap::new();
    collect(&root(), Path::new(""), &mut found);
    let mut cited: Cited = BTreeMap::new();
    for (id, files) in found {
        cited.entry(ledger.resolve(id)).or_default().extend(files);
    }
    if std::env::var_os("UPDATE_STATEMENTS").is_some() {
        update_ledger(&cited);
        ledger = read_ledger();
    }
    let mut wrong = Vec::new();
    for ((version, id), status) in &ledger.statements {
        match status {
            Status::Covered if !cited.contains_key(&(*version, id.clone())) => {
                wrong.push(format!("{version:?} {id} is marked covered, but no test cites it"));
            }
            Status::As(other) if !ledger.statements.contains_key(&(Version::V5, other.clone())) => {
                wrong.push(format!("{version:?} {id} points to {other}, which is not in the ledger"));
            }
            Status::As(_) if *version == Version::V5 => wrong.push(format!("{id}: 'as' is for 3.1.1")),
            _ => {}
        }
    }
    for (id, files) in &cited {
        if !ledger.knows(id) {
            wrong.push(format!("{id:?} is no statement of the ledger, but is cited in {files:?}"));
        }
    }
    report(&ledger, &cited);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Makes `untested` (or `as …`) `covered` where a test cites it, and the other way round where none does any more.
fn update_ledger(cited: &Cited) {
    let text = fs::read_to_string(path()).expect("the ledger is in the repository");
    let mut version = Version::V5;
    let lines = text.lines().map(|line| {
        if line == "## MQTT 3.1.1" {
            version = Version::V3;
        }
        let id = line.strip_prefix("| ").and_then(|row| row.split_once(" |")).map_or("", |(id, _)| id);
        let is_cited = cited.contains_key(&(version, id.to_owned()));
        match line.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")) {
            Some((row, "covered")) if !is_cited => format!("{row} | untested |\n"),
            Some((row, "untested")) if is_cited => format!("{row} | covered |\n"),
            Some((row, status)) if is_cited && status.starts_with("as ") => format!("{row} | covered |\n"),
            _ => format!("{line}\n"),
        }
    });
    fs::write(path(), lines.collect::<String>()).expect("the ledger can be written");
}

fn report(ledger: &Ledger, cited: &Cited) {
    for version in [Version::V5, Version::V3] {
        let (mut covered, mut exempt, mut untested) = (0, 0, Vec::new());
        for ((of, id), status) in ledger.statements.iter().filter(|((of, _), _)| *of == version) {
            let status = match status {
                Status::As(other) => &ledger.statements[&(Version::V5, other.clone())],
                own => own,
            };
            match status {
                Status::Covered => covered += 1,
                Status::Exempt => exempt += 1,
                _ if cited.contains_key(&(*of, id.clone())) => untested.push(format!("{id} (cited: mark it covered)")),
                _ => untested.push(id.clone()),
            }
        }
        println!("{version:?}: {covered} covered, {exempt} exempt, {} untested: {untested:?}", untested.len());
    }
}

#[test]
fn citations_are_found_with_their_version() {
    let id = |version, id: &str| (version, id.to_owned());
    let text = "`[MQTT-3.1.2-4]`, [MQTT-2.2.2-2] of 3.1.1, `[MQTT-3-8.3-4]` of 3.1.1; [MQTT-x.y.z-n] [MQTT-4.2-1] \
                [MQTT-4.3.3] [MQTT-3.1.2-11.2] (3.1.1: [MQTT-3.1.3-8]) [MQTT-3.1.3-1] to [MQTT-3.1.3-3]\n[MQTT-1.5.4-1]";
    assert_eq!(
        citations(text),
        [
            id(Version::V5, "3.1.2-4"),
            id(Version::V3, "2.2.2-2"),
            id(Version::V3, "3-8.3-4"),
            id(Version::V5, "4.2-1"),
            id(Version::V3, "3.1.3-8"),
            id(Version::V3, "3.1.3-1"),
            id(Version::V3, "3.1.3-2"),
            id(Version::V3, "3.1.3-3"),
            id(Version::V5, "1.5.4-1"),
        ]
    );
}

#[test]
fn test_code_is_told_from_the_rest() {
    let text = "code [MQTT-1-1]\n#[cfg(test)]\nmod tests";
    assert_eq!(test_part(Path::new("broker/src/x.rs"), text), "#[cfg(test)]\nmod tests");
    assert_eq!(test_part(Path::new("broker/src/x.rs"), "code"), "");
    assert_eq!(test_part(Path::new("broker/src/access/tests.rs"), text), text);
    assert_eq!(test_part(Path::new("session/tests/mqtt/x.rs"), text), text);
}
