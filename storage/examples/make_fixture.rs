//! Writes the fixture directory of the current format: `cargo run -p postroad-storage --example make_fixture -- <directory>`.
//! Run it once per released format; the result is kept for ever in `tests/fixtures/`. What is in it: `tests/support/fixture.rs`. (That of
//! format 1 was written by its release; what is in it says its test.)

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use support::{fixture, life};

fn main() {
    let path = std::env::args().nth(1).expect("usage: make_fixture <directory>");
    let path = Path::new(&path);
    let (directory, mut shards) = life::open(path, 1);
    fixture::live(&mut shards[0]);
    drop((shards, directory));
    fs::remove_file(path.join("lock")).expect("the directory was locked");
    give_room_back(&path.join("generation-1/shard-0/old/0.jnl"));
}

/// The old generation's journal has 64 MiB of zeros behind what is written, which nobody reads and each clone would have.
fn give_room_back(journal: &Path) {
    let bytes = fs::read(journal).expect("a journal");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let file = fs::File::options().write(true).open(journal).expect("it can be written");
    file.set_len(used as u64).expect("it can be cut");
}
