//! `postroad.v1.Admin`, and the standard health service: what the server is at.

use std::sync::Arc;

use postroad_proto::v1;
use postroad_proto::v1::admin_server::AdminServer;
use postroad_proto::v1::clients_server::ClientsServer;
use postroad_proto::v1::consumer_server::ConsumerServer;
use postroad_proto::v1::dead_letters_server::DeadLettersServer;
use postroad_proto::v1::groups_server::GroupsServer;
use postroad_proto::v1::messages_server::MessagesServer;
use postroad_proto::v1::receipts_server::ReceiptsServer;
use postroad_proto::v1::scheduled_server::ScheduledServer;
use postroad_proto::v1::topics_server::TopicsServer;
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::{Call, clients, consumer, groups, letters, messages, receipts, scheduled, topics};
use crate::admin::Reloaded;
use crate::server::{self, Phase};
use crate::shared::Server;
use crate::tokens::Right;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::admin_server::Admin for Service {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        let report = self.0.status_report();
        Ok(Response::new(v1::Status {
            phase: phase_of(&report.phase).into(),
            reason: report.reason.unwrap_or_default(),
            notes: report.notes,
            stalled_shards: report.stalled_shards.into_iter().filter_map(|shard| u32::try_from(shard).ok()).collect(),
            version: report.version.to_owned(),
            revision: report.revision.to_owned(),
            uptime_seconds: report.uptime_seconds,
        }))
    }

    async fn get_metrics(&self, _: Request<v1::GetMetricsRequest>) -> Result<Response<v1::Metrics>, Status> {
        Ok(Response::new(v1::Metrics { text: self.0.metrics().await }))
    }

    async fn reload(&self, request: Request<v1::ReloadRequest>) -> Result<Response<v1::ReloadResponse>, Status> {
        let call = Call::in_request(&request)?;
        let Reloaded { applied, waiting } = self.0.reload(call.caller(Right::Admin)?).await?;
        Ok(Response::new(v1::ReloadResponse { applied, waiting }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let call = Call::in_request(&request)?;
        self.0.drain(call.caller(Right::Admin)?)?;
        Ok(Response::new(v1::DrainResponse {}))
    }
}

fn phase_of(phase: &Phase) -> v1::Phase {
    match phase {
        Phase::Starting => v1::Phase::Starting,
        Phase::Serving => v1::Phase::Serving,
        Phase::Draining => v1::Phase::Draining,
        Phase::Poisoned(_) => v1::Phase::Poisoned,
    }
}

/// The health service, as of now and from here on.
pub(super) async fn health(server: &Arc<Server>) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    let status = server.status.clone();
    report(&reporter, &status).await;
    tokio::spawn(follow(reporter, status));
    service
}

/// Ends with the server.
async fn follow(reporter: HealthReporter, mut status: watch::Receiver<server::Status>) {
    while status.changed().await.is_ok() {
        report(&reporter, &status).await;
    }
}

async fn report(reporter: &HealthReporter, status: &watch::Receiver<server::Status>) {
    let is_serving = status.borrow().phase == Phase::Serving;
    let health = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    let services = [
        "",
        MessagesServer::<messages::Service>::NAME,
        GroupsServer::<groups::Service>::NAME,
        ConsumerServer::<consumer::Service>::NAME,
        ClientsServer::<clients::Service>::NAME,
        ReceiptsServer::<receipts::Service>::NAME,
        ScheduledServer::<scheduled::Service>::NAME,
        TopicsServer::<topics::Service>::NAME,
        DeadLettersServer::<letters::Service>::NAME,
        AdminServer::<Service>::NAME,
    ];
    for service in services {
        reporter.set_service_status(service, health).await;
    }
}
