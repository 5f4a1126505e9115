//! `postroad.v1.Clients`: who is known, what waits for whom, and the end of a connection.

use std::sync::Arc;

use postroad_base::ShardId;
use postroad_proto::v1;
use tonic::{Request, Response, Status};

use super::Call;
use crate::checks::{LIMIT, LIMIT_MAX};
use crate::clients::{
    ClientReport, ClientsCursor, ClientsFilter, QueueReport, RegistrationReport, RoadReport, SessionReport,
};
use crate::problem::Problem;
use crate::shared::Server;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::clients_server::Clients for Service {
    async fn list(
        &self,
        request: Request<v1::ListClientsRequest>,
    ) -> Result<Response<v1::ListClientsResponse>, Status> {
        let v1::ListClientsRequest { filter, page_size, page_token } = request.into_inner();
        let limit = limit_of("page_size", page_size)?;
        let from = match page_token.as_str() {
            "" => ClientsCursor::first_of(ShardId(0)),
            token => ClientsCursor::parse(token)
                .ok_or_else(|| Problem::bad("page_token must be what a page before gave as next_page_token"))?,
        };
        let (clients, next) = self.0.api.clients(&filter_of(filter), from, limit).await.map_err(Problem::from)?;
        let next_page_token = next.map(ClientsCursor::text).unwrap_or_default();
        Ok(Response::new(v1::ListClientsResponse { clients: told(clients), next_page_token }))
    }

    async fn top(&self, request: Request<v1::TopClientsRequest>) -> Result<Response<v1::TopClientsResponse>, Status> {
        let v1::TopClientsRequest { filter, limit } = request.into_inner();
        let limit = limit_of("limit", limit)?;
        let clients = self.0.api.clients_behind(&filter_of(filter), limit).await.map_err(Problem::from)?;
        Ok(Response::new(v1::TopClientsResponse { clients: told(clients) }))
    }

    async fn get(&self, request: Request<v1::GetClientRequest>) -> Result<Response<v1::Client>, Status> {
        let report = self.0.api.client(&request.get_ref().client, false).await?;
        Ok(Response::new(report.into()))
    }

    async fn disconnect(&self, request: Request<v1::DisconnectClientRequest>) -> Result<Response<v1::Client>, Status> {
        let call = Call::in_request(&request)?;
        let client = request.into_inner().client;
        let caller = &*call.caller()?.name;
        tracing::info!(client, caller, "a client is disconnected through the API");
        Ok(Response::new(self.0.api.client(&client, true).await?.into()))
    }
}

fn limit_of(name: &str, limit: u32) -> Result<usize, Problem> {
    match limit as usize {
        0 => Ok(LIMIT),
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Problem::bad(format!("{name} must be at most {LIMIT_MAX}"))),
    }
}

fn filter_of(filter: Option<v1::ClientFilter>) -> ClientsFilter {
    let v1::ClientFilter { connected, user, group, prefix, backlog_min } = filter.unwrap_or_default();
    ClientsFilter {
        connected,
        user: user.map(Into::into),
        group: group.map(Into::into),
        prefix: Some(prefix).filter(|prefix| !prefix.is_empty()),
        backlog_min: usize::try_from(backlog_min).unwrap_or(usize::MAX),
    }
}

fn told(reports: Vec<ClientReport>) -> Vec<v1::Client> {
    reports.into_iter().map(Into::into).collect()
}

impl From<ClientReport> for v1::Client {
    fn from(report: ClientReport) -> Self {
        let ClientReport { client, user, groups, connected, address, backlog, session, registration, road } = report;
        Self {
            client,
            user,
            groups,
            connected,
            address,
            backlog: backlog as u64,
            session: session.map(Into::into),
            registration: registration.map(Into::into),
            road: road.map(Into::into),
        }
    }
}

impl From<SessionReport> for v1::Session {
    fn from(report: SessionReport) -> Self {
        let SessionReport { since_unix_ms, expiry_seconds, subscriptions, queue } = report;
        Self { since_unix_ms, expiry_seconds, subscriptions: subscriptions as u64, queue: Some(queue.into()) }
    }
}

impl From<RegistrationReport> for v1::Registration {
    fn from(RegistrationReport { by, queue }: RegistrationReport) -> Self {
        Self { by: by.to_owned(), queue: Some(queue.into()) }
    }
}

impl From<RoadReport> for v1::Road {
    fn from(RoadReport { round_trip_ms, ack_timeout_ms, overdue }: RoadReport) -> Self {
        Self { round_trip_ms: round_trip_ms.map(Into::into), ack_timeout_ms, overdue: overdue as u64 }
    }
}

impl From<QueueReport> for v1::Queue {
    fn from(QueueReport { waiting, in_flight, bytes }: QueueReport) -> Self {
        Self { waiting: waiting as u64, in_flight: in_flight as u64, bytes: bytes as u64 }
    }
}
