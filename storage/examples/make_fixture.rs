//! Writes the fixture directory of the current format: `cargo run -p postroad-storage --example make_fixture -- <directory>`.
//! Run it once per released format; the result is kept for ever in `tests/fixtures/`. What is in it: `tests/support/fixture.rs`. (That of
//! format 1 was written by its release; what is in it says its test.)

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;

use support::{fixture, life};

fn main() {
    let path = std::env::args().nth(1).expect("usage: make_fixture <directory>");
    let (_directory, mut shards) = life::open(Path::new(&path), 1);
    fixture::live(&mut shards[0]);
}
