//! The binary `postroad`: the server and its tools.
//!
//! What the server does is in `engine`; here are the option table ([`options`]), the command line ([`cli`])
//! and, one module each, what the subcommands do.

mod api;
mod cli;
mod doctor;
mod log_tool;
mod logging;
mod man;
mod mqtt;
mod notify;
mod options;
mod passwd;
mod payload;
mod plugin;
mod secrets;
mod serve;
mod token;
mod wishes;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{CheckConfigArgs, Cli, Command, ConfigArgs};
use options::Sources;

/// See ADR 17: messages are small pieces that are born and die by the hundred thousand a second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a configuration that can't be used.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let outcome = run(Cli::parse().command);
    outcome.unwrap_or_else(|error| {
        if is_output_closed(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("postroad: {error:#}");
        let config = error.downcast_ref::<options::ConfigError>().is_some();
        ExitCode::from(if config { EXIT_CONFIG } else { 1 })
    })
}

/// Whoever reads what we print, `head` for instance, has enough. Only lists come here with it: what acts goes on (`api::told`), and
/// says why if it can't.
fn is_output_closed(error: &anyhow::Error) -> bool {
    // Sockets say so in a context of their own.
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe) && error.chain().count() == 1
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(args) => return serve::serve(&sources(args)),
        Command::CheckConfig(args) => check_config(args)?,
        Command::Passwd(args) => passwd::passwd(&args)?,
        Command::Token(args) => token::token(&args)?,
        Command::Publish(args) => return api::publish(&args),
        Command::Scheduled(args) => api::scheduled(&args.action)?,
        Command::Client(args) => api::client(&args.action)?,
        Command::Topic(args) => api::topic(&args.action)?,
        Command::Subscription(args) => api::subscription(&args.action)?,
        Command::Admin(args) => api::admin(&args.action)?,
        Command::Plugin(args) => match args.action {
            cli::PluginAction::Author(action) => return plugin::author(&action),
            cli::PluginAction::Online(action) => api::plugin(&action)?,
        },
        Command::Dlq(args) => api::dlq(&args.action)?,
        Command::Trace(args) => api::trace(&args)?,
        Command::Receipts(args) => api::receipts(&args)?,
        Command::Group(args) => return api::group(&args.action),
        Command::Top(args) => api::top(&args)?,
        Command::Pub(args) => mqtt::publish(&args)?,
        Command::Sub(mut args) => match mqtt::subscribe(&mut args)? {
            mqtt::End::Done => {}
            mqtt::End::Timeout => return Ok(ExitCode::from(mqtt::EXIT_TIMEOUT)),
        },
        Command::Record(args) => mqtt::record(*args)?,
        Command::Doctor(args) => return doctor::doctor(&sources(args)),
        Command::Log(args) => return log_tool::log(&args.action),
        Command::Man(args) => man::man(&args)?,
        Command::Completions { shell } => man::completions(shell)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn sources(args: ConfigArgs) -> Sources {
    Sources { file: args.config, data: args.data, sets: args.set }
}

fn check_config(args: CheckConfigArgs) -> Result<()> {
    let settings = options::load(&sources(args.config))?;
    postroad_engine::Engine::check_plugins(&settings.engine)?;
    if args.print {
        print!("{}", options::commented(&settings));
    } else {
        println!("the configuration is valid");
    }
    Ok(())
}
