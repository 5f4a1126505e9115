//! `postroad plugin …`: what authors of plugins need, without a server. What is asked of a running one is in `api::plugin`.
//!
//! Exit codes: 0 all is well, 1 something is wrong with a plugin or could not be done, 2 the command line or the configuration is wrong.

mod args;
mod bench;
mod check;
mod files;
mod fmt_check;
mod messages;
mod new;
mod stubs;
mod test;
mod trial;

use std::process::ExitCode;

use anyhow::Result;

pub use args::{AuthorAction, RecordArgs};

/// Runs the command.
pub fn author(action: &AuthorAction) -> Result<ExitCode> {
    let is_good = match action {
        AuthorAction::New(args) => new::new(args)?,
        AuthorAction::Check(args) => check::check(args)?,
        AuthorAction::Test(args) => test::test(args)?,
        AuthorAction::Bench(args) => bench::bench(args)?,
        AuthorAction::Try(args) => trial::trial(args)?,
        AuthorAction::FmtCheck(args) => fmt_check::fmt_check(args)?,
        AuthorAction::Stubs { dir } => stubs::stubs(dir.as_deref())?,
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
