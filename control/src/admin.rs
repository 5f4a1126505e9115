//! What operators ask of the server as a whole: how it is, to read its configuration anew, and to stop.
//!
//! Reading and stopping are for who runs the process: it is handed an [`Order`], as it is handed a signal.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use tokio::time::timeout;

use crate::metrics::{Snapshot, render};
use crate::plugins::PluginsLine;
use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::report::{Request, ShardReport};
use crate::server::Phase;
use crate::shared::Server;

/// What callers of the API want of the process.
#[derive(Debug)]
pub enum Order {
    /// To read its configuration anew, as after SIGHUP; what became of it goes there. An error says why nothing is changed.
    Reload(flume::Sender<Result<Reloaded, String>>),
    /// To stop gracefully, as after SIGTERM.
    Drain,
}

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Options with their new values.
    pub applied: Vec<String>,
    /// Options that have changed and wait for a restart.
    pub waiting: Vec<String>,
}

/// Who takes orders: gives back whether there was room for this one. Never waits.
#[derive(Clone)]
pub(crate) struct Obey(pub Arc<dyn Fn(Order) -> bool + Send + Sync>);

impl fmt::Debug for Obey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Obey")
    }
}

/// How the server is.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    #[serde(serialize_with = "name_of_phase")]
    pub phase: Phase,
    /// Why it does not serve.
    pub reason: Option<String>,
    pub notes: Vec<String>,
    pub stalled_shards: Vec<usize>,
    pub version: &'static str,
    pub revision: &'static str,
    pub uptime_seconds: u64,
}

fn name_of_phase<S: serde::Serializer>(phase: &Phase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(phase.name())
}

impl Server {
    pub(crate) fn status_report(&self) -> StatusReport {
        let status = self.status.borrow().clone();
        StatusReport {
            reason: status.phase.reason().map(str::to_owned),
            notes: status.standing_notes().map(str::to_owned).collect(),
            phase: status.phase,
            stalled_shards: self.stalled.borrow().clone(),
            version: self.build.version,
            revision: self.build.revision,
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    /// All figures, as Prometheus reads them.
    pub(crate) async fn metrics(&self) -> String {
        let shards = Arc::clone(&self.shards.borrow());
        let reports = self.reports(&shards.lines).await;
        let process = crate::process::read();
        let phase = self.status.borrow().phase.name();
        render(&Snapshot {
            build: &self.build,
            phase,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            process: &process,
            shards: &reports,
            shards_asked: shards.lines.len(),
            http: self.http.read(),
            grpc: self.grpc.read(),
            unanswered: self.unanswered.load(Ordering::Relaxed),
            history: self.history.figures.read(),
            plugins: shards.plugins.as_ref().map(PluginsLine::figures).unwrap_or_default(),
        })
    }

    /// Asks all shards at once; those that don't answer in time are missing from the result.
    pub(crate) async fn reports(&self, shards: &[crate::line::Line]) -> Vec<ShardReport> {
        let (answers, answered) = flume::bounded(shards.len().max(1));
        let asked = shards.iter().filter(|shard| shard.ask(Request::Report(answers.clone()))).count();
        drop(answers);
        let mut reports: Vec<ShardReport> = Vec::with_capacity(asked);
        let collect = async {
            while let Ok(report) = answered.recv_async().await {
                reports.push(report);
            }
        };
        let _late = timeout(self.settings.shard_timeout, collect).await;
        self.count_unanswered(shards.len() - reports.len());
        reports.sort_by_key(|report| report.shard);
        reports
    }

    /// Has the configuration read anew; what that has changed.
    pub(crate) async fn reload(&self, caller: &Caller) -> Result<Reloaded, Problem> {
        tracing::info!(caller = &*caller.name, "a reload is asked for through the API");
        let (answer, answered) = flume::bounded(1);
        self.order(Order::Reload(answer))?;
        match timeout(self.settings.request_timeout, answered.recv_async()).await {
            Ok(Ok(Ok(reloaded))) => Ok(reloaded),
            Ok(Ok(Err(why))) => Err(Problem::new(Kind::ReloadRefused, why)),
            Ok(Err(_)) => Err(not_now()),
            Err(_) => Err(Problem::new(Kind::Unknown, "the configuration was not read in time: it may be, later")),
        }
    }

    /// Has the server stop gracefully; again is no error.
    pub(crate) fn drain(&self, caller: &Caller) -> Result<(), Problem> {
        tracing::info!(caller = &*caller.name, "the server is asked to stop through the API");
        let is_draining = self.status.borrow().phase == Phase::Draining;
        if is_draining { Ok(()) } else { self.order(Order::Drain) }
    }

    fn order(&self, order: Order) -> Result<(), Problem> {
        let obey = self.orders.borrow().clone().ok_or_else(not_now)?;
        let busy = || Problem::new(Kind::Busy, "other orders are waiting; try again");
        (obey.0)(order).then_some(()).ok_or_else(busy)
    }
}

fn not_now() -> Problem {
    Problem::new(Kind::NotServing, "the server is starting or stopping")
}
