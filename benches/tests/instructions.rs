//! Instructions of the hot paths, counted by callgrind: they don't depend on the machine's mood, so a change that makes a path
//! longer shows here, and not in noise.
//!
//! Each path of `examples/paths.rs` runs twice, with different counts; the difference, divided, is what one operation takes.
//! `instructions.json` has what they took when it was written. More than that and a tolerance fails; a path that has become shorter
//! by more than that fails, too: write the new figure down, so that it stays.
//!
//! Figures hold for one processor family and one C library, which the file names. Elsewhere, and with RUSTFLAGS, nothing is
//! compared, and the test says so.
//!
//! `POSTROAD_BLESS=1 cargo test -p postroad-benches --test instructions` writes the file. Needs valgrind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Operations of the shorter run, and how many more the longer one has. Enough for what happens once in a while (a table that
/// grows) to weigh as it does in the long run.
const SHORT: u64 = 64;
const MORE: u64 = 640;
/// A compiler's and a libc's whims: which copy routine a processor gets.
const TOLERANCE: f64 = 0.04;

#[test]
fn instructions_of_each_path() {
    let paths = build_paths();
    let now = counted(&paths);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    if std::env::var_os("POSTROAD_BLESS").is_some() {
        let rows: Vec<_> = now.iter().map(|(name, count)| format!("  \"{name}\": {count}")).collect();
        let text = format!("{{\n  \"counted on\": \"{}\",\n{}\n}}\n", platform(), rows.join(",\n"));
        std::fs::write(&file, text).expect("the repository can be written");
        return;
    }
    let text = std::fs::read_to_string(&file).expect("instructions.json is in the repository");
    if !text.contains(&format!("\"counted on\": \"{}\"", platform())) || std::env::var_os("RUSTFLAGS").is_some() {
        println!(
            "nothing is compared: this is {}, or RUSTFLAGS are set; {}",
            platform(),
            text.lines().nth(1).unwrap_or("")
        );
        return;
    }
    let before = read(&text);
    let mut wrong = Vec::new();
    for (name, count) in &now {
        let known = before.get(name).copied().unwrap_or(0);
        println!("{name:42} {count:8} ({known} before)");
        if (*count as f64 - known as f64).abs() > TOLERANCE * known as f64 {
            wrong.push(format!("{name}: {count} instructions, {known} before"));
        }
    }
    let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{name} is gone"));
    wrong.extend(gone);
    assert!(wrong.is_empty(), "see the head of tests/instructions.rs:\n{}", wrong.join("\n"));
}

/// What the counts depend on, beside the code and the compiler (which `rust-toolchain.toml` pins).
fn platform() -> String {
    let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let libc =
        libc.map_or_else(|_| "another libc".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    format!("{}, {libc}", std::env::consts::ARCH)
}

/// As users run it: optimised.
fn build_paths() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "--quiet", "-p", "postroad-benches", "--example", "paths"];
    let built = Command::new(cargo).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.expect("cargo runs").success(), "the example can't be built");
    // …/target/debug/deps/instructions-… is this test.
    let test = std::env::current_exe().expect("this test is a file");
    let target = test.ancestors().nth(3).expect("it stands in target/debug/deps");
    target.join("release/examples/paths")
}

fn counted(paths: &Path) -> BTreeMap<String, u64> {
    let names = Command::new(paths).output().expect("the example runs").stdout;
    let names = String::from_utf8(names).expect("names are text");
    let of = |name: &str| {
        let (short, long) = (instructions(paths, name, SHORT), instructions(paths, name, SHORT + MORE));
        (name.to_owned(), (long - short) / MORE)
    };
    names.lines().map(of).collect()
}

/// All instructions of a run.
fn instructions(paths: &Path, name: &str, count: u64) -> u64 {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(paths)
        .args([name, &count.to_string()])
        .output()
        .expect("valgrind is missing: install the package valgrind");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{name}: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    collected.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in: {said}"))
}

/// The file as this test writes it: a line for each path.
fn read(text: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let (name, count) = line.trim().trim_end_matches(',').rsplit_once(": ")?;
        Some((name.trim_matches('"').to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}
