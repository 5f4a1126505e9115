//! Open files of a server of many shards. Alone in its process, since it counts them.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use postroad_engine::config::Shards;
use postroad_engine::{Config, Engine, files_besides_connections};

fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count() as u64
}

/// The reserve was 512 whatever the number of shards: with 32, connections up to the limit took files that logs needed,
/// and a segment that can't be opened poisons its log.
#[test]
fn the_reserve_covers_what_32_shards_open() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config {
        shards: Shards::Count(NonZeroU16::new(32).expect("not 0")),
        data_dir: dir.path().to_owned(),
        storage_free_bytes_min: 0,
        ..Config::default()
    };
    config.listeners[0].address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.log.segment_bytes = 64 << 10;
    let before = open_files();
    let running = Engine::start(config).expect("the engine starts");
    let used = open_files() - before;
    // Tables of the old generations are not open yet; all else is.
    let tables = 32 * postroad_storage::old::OLD_FILES_MAX as u64;
    let reserve = files_besides_connections(32, 1);
    println!("{used} files are open, {reserve} are reserved, {tables} of them for tables");
    assert!(used + tables > 512, "the old reserve did not cover them");
    assert!(used + tables <= reserve);
    running.handle().drain();
    running.wait().expect("a drain ends well");
}
