//! The command line of the author's tools.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::{ApiArgs, ConnectionArgs, LetterFilterArgs};

/// What needs no running server; `try --letters` asks one, and changes nothing there.
#[derive(Debug, Subcommand)]
pub enum AuthorAction {
    /// Make a new plugin, with a test, and what editors want to know of the API.
    New(NewArgs),
    /// Check plugins and their tests: syntax, names that the API does not have, keys of the plugin's table, filters, limits.
    ///
    /// Each finding is a line FILE:LINE:COLUMN: error: TEXT, which editors jump to. Warnings tell what works and was probably meant otherwise; they
    /// do not fail the command, but with --strict.
    Check(CheckArgs),
    /// Run the tests of plugins: NAME_test.lua beside NAME.lua, and the plugins' self-tests.
    ///
    /// Each case has a plugin, stores and a clock of its own, under the limits of the server. A line tells of each case; where one failed an
    /// editor can jump to. What a test can do is told in docs/plugin-tools.md.
    Test(TestArgs),
    /// Measure what a call of each hook costs.
    ///
    /// Time is that of this machine and this build: a debug build is many times slower. Bytes are what a call asks Lua's allocator for; instructions are
    /// counted by thousands.
    Bench(BenchArgs),
    /// Show what plugins would do with recorded messages, or with the dead letters of a server. Nothing is changed by it.
    ///
    /// All plugins that are given are asked as a chain, as a server does. The time is that of each message. Which client published a message is not
    /// recorded: --from says it, or "client", "user" and "groups" in the recorded line.
    Try(Box<TryArgs>),
    /// Tell whether plugins and tests are formatted: indentation by two spaces, no tabs, no blanks at line ends, one line break at the end.
    FmtCheck(FmtCheckArgs),
    /// Write what editors want to know of the API (for the Lua language server): postroad.lua, in a folder, or on standard output.
    Stubs {
        /// The folder; made if it is missing.
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Which plugins, under which limits.
#[derive(Args, Debug)]
pub struct PluginsArgs {
    /// Plugins (NAME.lua, or NAME_test.lua), or folders of them.
    #[arg(default_value = ".", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// A server's configuration, for the limits plugins.*. Without: the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one option; wins over the file. Can be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args, Debug)]
pub struct NewArgs {
    /// Its name: a-z, 0-9, '_' and '-', beginning with a letter.
    pub name: String,
    /// What it begins with.
    #[arg(long, default_value = "route", value_name = "TEMPLATE")]
    pub template: Template,
    /// The folder; made if it is missing.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
}

/// What a new plugin begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Messages to another topic, or to nobody.
    Route,
    /// Dead letters repaired and sent again.
    DeadLetter,
    /// Who may connect and subscribe.
    Access,
    /// Frames of a device's own, for a listener.
    Frame,
    /// State that a reload hands over.
    State,
}

#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pub plugins: PluginsArgs,
    /// Warnings fail, too.
    #[arg(long)]
    pub strict: bool,
    /// Print JSON, a line for each finding.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    pub plugins: PluginsArgs,
    /// Only cases in whose line, PLUGIN: CASE, this text stands.
    #[arg(long, short, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Print JSON, a line for each case.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BenchArgs {
    #[command(flatten)]
    pub plugins: PluginsArgs,
    /// Messages that `postroad record` wrote. Without: one for each filter of the hook.
    #[arg(long, value_name = "FILE")]
    pub messages: Option<PathBuf>,
    /// Bytes of the payload of messages that are made up.
    #[arg(long, default_value_t = 100, value_name = "BYTES", conflicts_with = "messages")]
    pub payload: usize,
    /// Calls of each hook.
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    pub calls: u32,
    /// Print JSON, a line for each hook.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["messages", "letters"]))]
pub struct TryArgs {
    #[command(flatten)]
    pub plugins: PluginsArgs,
    /// Messages that `postroad record` wrote, or letters that `postroad dlq export` wrote; -: standard input.
    #[arg(long, short, value_name = "FILE")]
    pub messages: Option<PathBuf>,
    /// The dead letters of the server at --api.
    #[arg(long)]
    pub letters: bool,
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(flatten)]
    pub filter: LetterFilterArgs,
    /// The client that publishes.
    #[arg(long, default_value = "recorded", value_name = "CLIENT")]
    pub from: String,
    /// The user that it proved to be.
    #[arg(long, value_name = "NAME")]
    pub from_user: Option<String>,
    /// A group of it. Can be given many times.
    #[arg(long, value_name = "NAME")]
    pub from_group: Vec<String>,
    /// An application publishes: only route is asked, not on_inbound.
    #[arg(long)]
    pub application: bool,
    /// Show also what would stay as it is.
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct FmtCheckArgs {
    /// Lua files, or folders of them.
    #[arg(default_value = ".", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print JSON, a line for each flaw.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct RecordArgs {
    /// Topic filters.
    #[arg(required = true, value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Where to. Without: standard output.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Stop after so many messages.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Highest quality of service: 0, 1 or 2.
    #[arg(long, short, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Leave out retained messages, which come at the beginning.
    #[arg(long)]
    pub no_retained: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}
