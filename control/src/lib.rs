//! The control plane: HTTP and gRPC on tokio, in one thread of its own.
//!
//! ```text
//!   curl, Prometheus ──HTTP──► control thread ──Request (bounded queue, bell)──► shard 0 … n
//!                                    ▲        ◄──── answer, try_send ───────
//!                                    │ Status (watch)
//!                                 engine, binary
//! ```
//!
//! It never makes a shard wait: questions go by `try_send` into a bounded queue ([`Line`]; what leases are given back by waits for
//! room there), answers come back the same way, and a shard that does not answer in time is shown as such. It knows nothing of `engine`: who
//! starts both gives it the lines by [`Handle::attach`].

mod admin;
mod api;
mod caller;
mod checks;
mod clients;
mod cursor;
mod groups;
mod grpc;
mod history;
mod http;
mod letters;
mod line;
mod listener;
mod metrics;
mod pending;
mod plugins;
mod problem;
mod process;
mod publication;
mod receipts;
mod report;
mod scheduled;
mod server;
mod shared;
mod stall;
mod tokens;
mod topics;
mod unread;
mod watching;

pub use admin::{Order, Reloaded};
pub use clients::{
    ClientAction, ClientChange, ClientChanged, ClientOrder, ClientReport, ClientsFilter, ClientsPage, ClientsQuery,
    DeliveryReport, Place, QueueReport, RegistrationReport, RoadReport, SessionReport,
};
pub use groups::{GroupLeft, GroupQuestion, GroupReport, GroupResult, GroupsQuestion, LeasedReport};
pub use history::Recorder;
pub use letters::{
    ImportedLetter, LetterImport, LetterOrder, LetterReport, LetterResult, LettersBell, LettersPage, LettersQuestion,
};
pub use line::{Line, Shards};
pub use pending::{PendingOrder, PendingQuestion, PendingReport, PendingReports};
pub use plugins::{
    Action, Attempt, AttemptOutcome, BY_ERROR_BUDGET, HookReport, PluginHook, PluginReport, PluginState, PluginsAnswer,
    PluginsCounters, PluginsLine, PluginsOrder, PluginsReport, PluginsState, PluginsWish, Trial, TrialState,
};
pub use publication::{Batch, Caller, Outcome, Properties, Publication, Turn};
pub use report::{
    DrainsReport, GroupsReport, Histogram, InterfaceReport, LanesReport, LogReport, Request, ScheduledReport,
    ShardReport,
};
pub use scheduled::{CancelOrder, ScheduledEntries, ScheduledEntry, ScheduledQuestion};
pub use server::{BuildInfo, Control, Handle, Listeners, Note, Phase, STOP_PATIENCE, Settings, Status};
pub use tokens::{Holder, Right, Tokens, TokensError};
pub use topics::{
    FilterCount, FilterCounts, FiltersPage, FiltersQuery, FiltersWanted, RetainedPage, RetainedQuery, RetainedReport,
    SubscriptionReport, SubscriptionsFilter, SubscriptionsPage, SubscriptionsQuery,
};
pub use watching::{Watch, Watched, WatchedLine};
