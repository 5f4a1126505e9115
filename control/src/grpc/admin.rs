//! `postroad.v1.Admin`, and the standard health service: what the server is at.

use std::sync::Arc;

use postroad_proto::v1;
use postroad_proto::v1::admin_server::AdminServer;
use postroad_proto::v1::clients_server::ClientsServer;
use postroad_proto::v1::messages_server::MessagesServer;
use postroad_proto::v1::receipts_server::ReceiptsServer;
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::{clients, messages, receipts};
use crate::server::{self, Phase};
use crate::shared::Server;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::admin_server::Admin for Service {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        let server = &self.0;
        let status = server.status.borrow().clone();
        let stalled = server.stalled.borrow().clone();
        Ok(Response::new(v1::Status {
            phase: phase_of(&status.phase).into(),
            reason: status.phase.reason().unwrap_or_default().to_owned(),
            notes: status.standing_notes().map(str::to_owned).collect(),
            stalled_shards: stalled.into_iter().filter_map(|shard| u32::try_from(shard).ok()).collect(),
            version: server.build.version.to_owned(),
            revision: server.build.revision.to_owned(),
            uptime_seconds: server.started.elapsed().as_secs(),
        }))
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
        ClientsServer::<clients::Service>::NAME,
        ReceiptsServer::<receipts::Service>::NAME,
        AdminServer::<Service>::NAME,
    ];
    for service in services {
        reporter.set_service_status(service, health).await;
    }
}
