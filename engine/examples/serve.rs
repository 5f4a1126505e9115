//! A server for trying the engine by hand: `serve [address] [memory|os|fsync] [shards] [data directory]`.
//! It runs until its standard input ends, and then stops gracefully.

use std::io::Read;
use std::num::NonZeroU16;

use postroad_engine::config::{Durability, Shards};
use postroad_engine::{Config, Engine};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    if let Some(address) = arguments.next() {
        config.listeners[0].address = address.parse()?;
    }
    config.durability = match arguments.next().as_deref() {
        Some("os") => Durability::Os,
        Some("fsync") => Durability::Fsync,
        _ => Durability::Memory,
    };
    if let Some(shards) = arguments.next() {
        config.shards = Shards::Count(shards.parse::<NonZeroU16>()?);
    }
    if let Some(data_dir) = arguments.next() {
        config.data_dir = data_dir.into();
    }
    let running = Engine::start(config)?;
    println!("{:?}", running.ports());
    let handle = running.handle();
    std::thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        handle.drain();
    });
    running.wait()?;
    Ok(())
}
