//! The command line of the author's tools.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What needs no running server.
#[derive(Debug, Subcommand)]
pub enum AuthorAction {
    /// Run the tests of plugins: NAME_test.lua beside NAME.lua, and the plugins' self-tests.
    ///
    /// Each case has a plugin, stores and a clock of its own, under the limits of the server. A line tells of each case; where one failed an
    /// editor can jump to. What a test can do is told in docs/plugin-tools.md.
    Test(TestArgs),
}

/// Which plugins, under which limits.
#[derive(Args, Debug)]
pub struct PluginsArgs {
    /// Plugins (NAME.lua, or NAME_test.lua), or folders of them.
    #[arg(default_value = ".", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// A server's configuration, for the limits plugins.*. Without: the defaults.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one option; wins over the file. Can be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print JSON, a line for each thing.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    pub plugins: PluginsArgs,
    /// Only cases in whose name, as it is printed, this text stands.
    #[arg(long, short, value_name = "TEXT")]
    pub filter: Option<String>,
}
