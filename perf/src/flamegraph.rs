//! A flame graph from what `perf script` prints.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph;

/// Draw a flame graph of what `perf script` has printed.
#[derive(Args, Clone, Debug)]
pub struct FlamegraphOptions {
    /// File with the stacks.
    pub stacks: PathBuf,
    /// SVG to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Line above the picture.
    #[arg(long)]
    pub title: String,
}

/// Reads, draws, writes.
pub fn run(options: &FlamegraphOptions) -> Result<()> {
    let stacks = File::open(&options.stacks).with_context(|| format!("cannot read {}", options.stacks.display()))?;
    let mut folded = Vec::new();
    Folder::default().collapse(BufReader::new(stacks), &mut folded).context("these are no stacks of perf script")?;
    let picture = File::create(&options.out).with_context(|| format!("cannot write {}", options.out.display()))?;
    let mut looks = flamegraph::Options::default();
    looks.title.clone_from(&options.title);
    flamegraph::from_reader(&mut looks, folded.as_slice(), BufWriter::new(picture)).context("cannot draw the stacks")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACKS: &str = "shard-0 42 1.0: 1 cycles:\n\t    7f01 write (libc)\n\t    5501 flush (postroad)\n\t    5500 main (postroad)\n\n";

    #[test]
    fn stacks_become_a_picture() {
        let directory = std::env::temp_dir().join(format!("postroad-flamegraph-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (stacks, out) = (directory.join("stacks.txt"), directory.join("out.svg"));
        std::fs::write(&stacks, STACKS).unwrap();
        run(&FlamegraphOptions { stacks, out: out.clone(), title: "a load".to_owned() }).unwrap();
        let picture = std::fs::read_to_string(&out).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        for text in ["a load", "flush", "write", "main"] {
            assert!(picture.contains(text), "{text} is not in\n{picture}");
        }
    }
}
