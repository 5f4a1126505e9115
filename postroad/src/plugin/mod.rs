//! `postroad plugin …`: what authors of plugins need, without a server. What is asked of a running one is in `api::plugin`.
//!
//! Exit codes: 0 all is well, 1 something is wrong with a plugin or could not be done, 2 the command line or the configuration is wrong.

mod args;
mod files;
mod test;

use std::process::ExitCode;

use anyhow::Result;

pub use args::AuthorAction;

/// Runs the command.
pub fn author(action: &AuthorAction) -> Result<ExitCode> {
    let is_good = match action {
        AuthorAction::Test(args) => test::test(args)?,
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
