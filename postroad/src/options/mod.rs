//! The option table and everything that comes from it.
//!
//! ```text
//! table ─┬─► load    TOML file, --set, [[listener]], [[retry.topic]]  ─► Settings, or every problem at once
//!        ├─► render  commented configuration, docs/configuration.md, postroad.toml(5)
//!        └─► reload  which changes apply now, which need a restart
//! ```
//!
//! An option that exists is one row of [`table::ROWS`]: nothing else has to change for the parser, the
//! documentation and the reload to know it.

mod kind;
mod load;
mod reload;
mod render;
mod retry_topic;
mod table;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use postroad_control as control;
use postroad_engine as engine;

pub use kind::{Kind, Value};
pub use load::{ConfigError, Sources, load};
pub use reload::plan;
pub use render::{commented, manual, markdown};
pub use table::{ROWS, Row};

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At the next reload (SIGHUP).
    Live,
    /// At the next start.
    Restart,
}

/// What a `[[listener]]` speaks, or a `listen.*` shorthand stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Mqtt,
    Http,
    Grpc,
    /// Frames of the codec that the listener names.
    Frames,
}

impl Protocol {
    /// Its name in `[[listener]] protocol` and behind `listen.`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Frames => "frames",
        }
    }
}

/// One `[[listener]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTable {
    pub name: String,
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// With [`Protocol::Frames`], and only then.
    pub codec: Option<String>,
}

/// The addresses of the `listen.*` shorthands; `None` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shorthands {
    pub mqtt: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub websocket: Option<SocketAddr>,
    pub native: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
}

impl Default for Shorthands {
    fn default() -> Self {
        let local = |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self { mqtt: local(1883), http: local(8080), websocket: None, native: None, grpc: None }
    }
}

/// Whether clients without credentials are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Only while there is no `auth.file`.
    #[default]
    Auto,
    Allow,
    Deny,
}

/// How the server logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Everything that an operator can set, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the engine takes; its listeners and `allow_anonymous` follow from the fields below.
    pub engine: engine::Config,
    pub control: control::Settings,
    pub shorthands: Shorthands,
    pub tables: Vec<ListenerTable>,
    pub anonymous: Anonymous,
    pub log_level: &'static str,
    pub log_format: LogFormat,
    /// Who may call the API.
    pub tokens_file: Option<PathBuf>,
    /// The HTTP listeners, of shorthand and tables.
    pub http: Vec<ListenerTable>,
    /// The gRPC listeners.
    pub grpc: Vec<ListenerTable>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: engine::Config::default(),
            control: control::Settings::default(),
            shorthands: Shorthands::default(),
            tables: Vec::new(),
            anonymous: Anonymous::default(),
            log_level: "info",
            log_format: LogFormat::default(),
            tokens_file: None,
            http: Vec::new(),
            grpc: Vec::new(),
        }
    }
}

/// What packaging/postroad.toml holds: the defaults, with the data where the unit puts it.
#[cfg(test)]
pub fn packaged() -> Settings {
    let data = Some(PathBuf::from("/var/lib/postroad"));
    load(&Sources { file: None, data, sets: Vec::new() }).expect("the defaults are valid")
}

/// The row of this key.
pub fn row(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.key == key)
}
