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
    let mut pages = Vec::new();
    add_pages("postroad", &command, &mut pages)?;
    pages.push(Page { file: "postroad.toml.5".to_owned(), text: options::manual().into_bytes() });
    Ok(pages)
}

/// A page for the command, and one for each below it: `postroad-dlq-list.1`.
fn add_pages(name: &str, command: &clap::Command, pages: &mut Vec<Page>) -> Result<()> {
    pages.push(page(name, command.clone())?);
    command.get_subcommands().try_for_each(|sub| add_pages(&format!("{name}-{}", sub.get_name()), sub, pages))
}

fn page(name: &str, command: clap::Command) -> Result<Page> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.version(env!("CARGO_PKG_VERSION"))).title(name);
    page.source(concat!("postroad ", env!("CARGO_PKG_VERSION"))).render(&mut text)?;
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

    /// Whoever reads of a command in one page finds that of the command.
    #[test]
    fn every_command_has_a_page() {
        fn names(name: &str, command: &clap::Command, all: &mut Vec<String>) {
            all.push(format!("{name}.1"));
            command.get_subcommands().for_each(|sub| names(&format!("{name}-{}", sub.get_name()), sub, all));
        }
        let mut all = Vec::new();
        names("postroad", &Cli::command(), &mut all);
        let pages = pages().expect("in memory");
        let files: Vec<&str> = pages.iter().map(|page| &*page.file).collect();
        assert!(all.len() > 40 && all.iter().all(|name| files.contains(&&**name)), "{all:?}");
        let mentioned = pages.iter().flat_map(|page| {
            let text = String::from_utf8(page.text.clone()).expect("text");
            let text = text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
            text.lines().filter_map(|line| line.strip_suffix("(1)").map(str::to_owned)).collect::<Vec<_>>()
        });
        for name in mentioned {
            assert!(files.contains(&&*format!("{name}.1")), "{name}(1) is mentioned, and there is none");
        }
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
        assert_generated("docs/plugin-reference.md", postroad_plugins::api::reference().as_bytes());
        assert_generated("docs/plugin-api.lua", postroad_plugins::api::stubs().as_bytes());
        for page in pages().expect("in memory") {
            assert_generated(&format!("docs/man/{}", page.file), &page.text);
        }
    }
}
