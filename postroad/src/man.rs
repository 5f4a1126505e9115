//! `postroad man` and `postroad completions`: made from the command line's and the options' tables.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;

use crate::cli::{Cli, ManArgs};
use crate::options;

/// Runs `man`.
pub fn man(args: &ManArgs) -> Result<()> {
    if args.markdown {
        return out(options::markdown().as_bytes());
    }
    if let Some(directory) = &args.dir {
        return write_all(directory);
    }
    let wanted = args.page.as_deref().unwrap_or("postroad");
    let pages = pages()?;
    let names: Vec<&str> = pages.iter().map(|page| page.stem()).collect();
    match pages.iter().find(|page| page.stem() == wanted || page.file == wanted) {
        Some(page) => out(&page.text),
        None => bail!("there is no page {wanted:?}; pages: {}", names.join(" ")),
    }
}

/// Runs `completions`.
pub fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "postroad", &mut text);
    out(&text)
}

struct Page {
    file: String,
    text: Vec<u8>,
}

impl Page {
    /// What the command line calls it.
    fn stem(&self) -> &str {
        if self.file == "postroad.toml.5" { "config" } else { self.file.trim_end_matches(".1") }
    }
}

fn pages() -> Result<Vec<Page>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![page("postroad", command.clone())?];
    for sub in command.get_subcommands() {
        let name = format!("postroad-{}", sub.get_name());
        pages.push(page(&name, sub.clone())?);
    }
    pages.push(Page { file: "postroad.toml.5".to_owned(), text: options::manual().into_bytes() });
    Ok(pages)
}

fn page(name: &str, command: clap::Command) -> Result<Page> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.version(env!("CARGO_PKG_VERSION"))).title(name).render(&mut text)?;
    Ok(Page { file: format!("{name}.1"), text })
}

fn write_all(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("can't make {}", directory.display()))?;
    for page in pages()? {
        let path = directory.join(&page.file);
        std::fs::write(&path, &page.text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// A pager that was left early is no error.
fn out(text: &[u8]) -> Result<()> {
    match std::io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    /// Remakes what differs when it is asked to: `POSTROAD_BLESS=1 cargo test -p postroad generated`.
    fn assert_generated(path: &str, text: &[u8]) {
        let file = repository(path);
        if std::env::var_os("POSTROAD_BLESS").is_some() {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
            std::fs::write(&file, text).expect("writable");
        }
        let there = std::fs::read(&file).unwrap_or_default();
        assert!(there == text, "{path} is not what the tables say; remake it with POSTROAD_BLESS=1");
    }

    #[test]
    fn generated_files_are_those_of_the_repository() {
        assert_generated("docs/configuration.md", options::markdown().as_bytes());
        let defaults = options::commented(&options::packaged());
        assert_generated("packaging/postroad.toml", defaults.as_bytes());
        for page in pages().expect("in memory") {
            assert_generated(&format!("docs/man/{}", page.file), &page.text);
        }
    }
}
