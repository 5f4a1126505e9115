//! The house of DESIGN, section 2, as a test: reads `cargo metadata` and fails on any edge not drawn there.
//!
//! To add an edge, draw it in ARCHITECTURE.md first, then here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate → the crates of ours that it may depend on. All may use `postroad-base`, but base itself.
///
/// The drawing is read with its paths: what is below a crate's own dependencies (`protocol` below `client`) is
/// below it too, so `postroad` and `engine` may name those directly. What is never allowed is an edge upwards or
/// sideways.
const EDGES: &[(&str, &[&str])] = &[
    ("postroad-base", &[]),
    ("postroad-protocol", &[]),
    ("postroad-proto", &[]),
    ("postroad-broker", &[]),
    ("postroad-session", &["postroad-protocol", "postroad-broker"]),
    ("postroad-storage", &[]),
    ("postroad-plugins", &["postroad-broker", "postroad-protocol"]),
    ("postroad-control", &["postroad-proto"]),
    (
        "postroad-engine",
        &[
            "postroad-session",
            "postroad-broker",
            "postroad-storage",
            "postroad-plugins",
            "postroad-control",
            "postroad-protocol",
        ],
    ),
    ("postroad", &["postroad-engine", "postroad-control", "postroad-client", "postroad-plugins", "postroad-protocol"]),
    ("postroad-client", &["postroad-protocol"]),
    ("postroad-perf", &["postroad-client", "postroad-protocol", "postroad-proto"]),
    // Benches and simulator measure and drive the sans-IO crates; nothing depends on them.
    (
        "postroad-benches",
        &["postroad-protocol", "postroad-broker", "postroad-session", "postroad-storage", "postroad-plugins"],
    ),
    (
        "postroad-sim",
        &["postroad-protocol", "postroad-broker", "postroad-session", "postroad-storage", "postroad-plugins"],
    ),
    ("postroad-e2e", &["postroad-protocol", "postroad-client", "postroad-proto"]),
];

/// Crate → the crates of ours that its tests alone may use besides.
const DEV_EDGES: &[(&str, &[&str])] = &[
    (
        "postroad-benches",
        &["postroad-protocol", "postroad-broker", "postroad-session", "postroad-storage", "postroad-plugins"],
    ),
    ("postroad-sim", &["postroad-protocol", "postroad-broker", "postroad-session", "postroad-storage"]),
    ("postroad-e2e", &["postroad-protocol", "postroad-client", "postroad-storage", "postroad-engine"]),
];

/// A foreign crate that has one house (or a few).
const HOUSES: &[(&str, &[&str])] = &[
    ("glommio-ng", &["postroad-engine"]),
    ("glommio", &[]),
    ("io-uring", &["postroad-engine"]),
    ("fjall", &["postroad-storage"]),
    ("mlua", &["postroad-plugins"]),
    ("redb", &["postroad-control"]),
    ("tokio", &["postroad-control", "postroad-client", "postroad-perf", "postroad"]),
    ("tonic", &["postroad-proto", "postroad-control", "postroad-client", "postroad-perf"]),
];

/// Tests and benches may use these beyond their houses: a harness needs a runtime to drive foreign clients.
const DEV_HOUSES: &[(&str, &[&str])] = &[("tokio", &["postroad-e2e"]), ("tonic", &["postroad-e2e"])];

struct Package {
    normal: BTreeSet<String>,
    dev: BTreeSet<String>,
}

/// The members of the workspace with their direct dependencies, by real name, whatever they are renamed to.
fn packages() -> BTreeMap<String, Package> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest]);
    let output = command.output().expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    list(&metadata["packages"]).iter().map(|package| (text(&package["name"]), understood(package))).collect()
}

fn understood(package: &Value) -> Package {
    let mut understood = Package { normal: BTreeSet::new(), dev: BTreeSet::new() };
    for dependency in list(&package["dependencies"]) {
        let kind = if dependency["kind"] == "dev" { &mut understood.dev } else { &mut understood.normal };
        kind.insert(text(&dependency["name"]));
    }
    understood
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn allowed<'a>(table: &[(&str, &'a [&'a str])], name: &str) -> &'a [&'a str] {
    table.iter().find(|(key, _)| *key == name).map_or(&[], |(_, allowed)| *allowed)
}

/// Every edge that is not allowed, in words.
fn violations(packages: &BTreeMap<String, Package>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, package) in packages {
        if !EDGES.iter().any(|(known, _)| known == name) {
            found.push(format!("{name} is not in the drawing"));
        }
        for (kind, dependencies) in [("", &package.normal), (" (in tests)", &package.dev)] {
            let is_dev = !kind.is_empty();
            for dependency in dependencies {
                if !edge_allowed(name, dependency, is_dev) || !house_allowed(name, dependency, is_dev) {
                    found.push(format!("{name} -> {dependency}{kind}"));
                }
            }
        }
    }
    found
}

fn edge_allowed(from: &str, to: &str, is_dev: bool) -> bool {
    let ours = to == "postroad" || to.starts_with("postroad-");
    let base = to == "postroad-base" && from != to;
    !ours || base || allowed(EDGES, from).contains(&to) || is_dev && allowed(DEV_EDGES, from).contains(&to)
}

fn house_allowed(from: &str, to: &str, is_dev: bool) -> bool {
    let housed = HOUSES.iter().any(|(name, _)| *name == to);
    !housed || allowed(HOUSES, to).contains(&from) || is_dev && allowed(DEV_HOUSES, to).contains(&from)
}

#[test]
fn no_crate_depends_on_what_the_drawing_does_not_allow() {
    let found = violations(&packages());
    assert!(found.is_empty(), "edges that DESIGN, section 2, does not draw:\n{}", found.join("\n"));
}

#[test]
fn every_crate_of_the_drawing_exists() {
    let packages = packages();
    for (name, _) in EDGES {
        assert!(packages.contains_key(*name), "{name} is drawn, but not a member of the workspace");
    }
}

/// The canary: edges that must be found are found.
#[test]
fn forbidden_edges_are_seen() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let one = |name: &str, normal: &[&str], dev: &[&str]| {
        BTreeMap::from([(name.to_owned(), Package { normal: set(normal), dev: set(dev) })])
    };
    for (packages, expected) in [
        (one("postroad-broker", &["postroad-engine"], &[]), "postroad-broker -> postroad-engine"),
        (one("postroad-control", &["postroad-broker"], &[]), "postroad-control -> postroad-broker"),
        (one("postroad-session", &["glommio-ng"], &[]), "postroad-session -> glommio-ng"),
        (one("postroad-broker", &[], &["tokio"]), "postroad-broker -> tokio (in tests)"),
        (one("postroad-engine", &["fjall"], &[]), "postroad-engine -> fjall"),
        (one("postroad-new", &[], &[]), "postroad-new is not in the drawing"),
    ] {
        assert_eq!(violations(&packages), [expected]);
    }
    assert!(violations(&one("postroad-engine", &["glommio-ng", "postroad-base"], &[])).is_empty());
}
