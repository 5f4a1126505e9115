//! `cargo run --release -p postroad-sim --example soak -- 0 10000 [shards] [credits] [queue] [memory] [plugins]`: many seeds, every failure shown.

use std::process::ExitCode;

use postroad_sim::{Options, run};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (from, to) = (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(1_000));
    let shards = numbers.get(2).map_or(3, |&shards| shards as u16);
    let credits = numbers.get(3).map_or(1, |&credits| credits as u32);
    let queue_max = numbers.get(4).map(|&queue| queue as usize);
    let durable = !std::env::args().any(|text| text == "memory");
    let plugins = std::env::args().any(|text| text == "plugins").then_some(10);
    let options = |seed| Options { shards, credits, queue_max, durable, plugins, ..Options::new(seed) };
    let failures = (from..to).filter_map(|seed| run(options(seed)).err());
    let count = failures.inspect(|what| println!("{what}")).count();
    println!("{count} of {} seeds failed", to - from);
    if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
