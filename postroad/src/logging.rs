//! The server's own messages: to standard error, as text or JSON, at a level that a reload can change.

use anyhow::{Context, Result};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::options::{LogFormat, Settings};

/// Changes the level of the running server.
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// From now on messages of `level` and above are written.
    pub fn set(&self, level: &str) -> Result<()> {
        self.0.reload(filter(level)).context("can't change the log level")
    }
}

/// Starts logging for the process.
pub fn start(settings: &Settings) -> Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(filter(settings.log_level));
    let to_stderr = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer: Box<dyn Layer<_> + Send + Sync> = match settings.log_format {
        LogFormat::Text => Box::new(to_stderr),
        LogFormat::Json => Box::new(to_stderr.json()),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init().context("can't start logging")?;
    Ok(LogLevel(handle))
}

/// Our crates at `level`; others tell no more than warnings.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("warn,postroad={level}"))
}
