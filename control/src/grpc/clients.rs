//! `postroad.v1.Clients`: who is known, what waits for whom, and the end of a connection.

use std::sync::Arc;

use postroad_base::{Pending, PendingId};
use postroad_proto::v1;
use tonic::{Request, Response, Status};

use super::messages::told_message;
use super::{Call, page_begin};
use crate::checks::page_limit;
use crate::clients::{
    ClientAction, ClientChange, ClientReport, ClientsCursor, ClientsFilter, DeliveryReport, QueueReport,
    RegistrationReport, RoadReport, SessionReport,
};
use crate::pending::{Acknowledged, PendingReport, PendingReports};
use crate::problem::{Kind, Problem};
use crate::shared::Server;
use crate::tokens::Right;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::clients_server::Clients for Service {
    async fn list(
        &self,
        request: Request<v1::ListClientsRequest>,
    ) -> Result<Response<v1::ListClientsResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Clients)?;
        let v1::ListClientsRequest { filter, page_size, page_token } = request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let from = page_begin(&page_token, ClientsCursor::parse)?.unwrap_or_default();
        let (clients, next) = self.0.api.clients(&filter_of(filter), from, limit).await.map_err(Problem::from)?;
        let next_page_token = next.map(ClientsCursor::text).unwrap_or_default();
        Ok(Response::new(v1::ListClientsResponse { clients: told(clients), next_page_token }))
    }

    async fn top(&self, request: Request<v1::TopClientsRequest>) -> Result<Response<v1::TopClientsResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Clients)?;
        let v1::TopClientsRequest { filter, limit } = request.into_inner();
        let limit = page_limit("limit", limit)?;
        let clients = self.0.api.clients_behind(&filter_of(filter), limit).await.map_err(Problem::from)?;
        Ok(Response::new(v1::TopClientsResponse { clients: told(clients) }))
    }

    async fn get(&self, request: Request<v1::GetClientRequest>) -> Result<Response<v1::Client>, Status> {
        self.act(&request, &request.get_ref().client, ClientAction::Show).await
    }

    async fn disconnect(&self, request: Request<v1::DisconnectClientRequest>) -> Result<Response<v1::Client>, Status> {
        self.act(&request, &request.get_ref().client, ClientAction::CutOff).await
    }

    async fn drain(&self, request: Request<v1::DrainClientRequest>) -> Result<Response<v1::Client>, Status> {
        self.act(&request, &request.get_ref().client, ClientAction::Drain).await
    }

    async fn register(&self, request: Request<v1::RegisterClientRequest>) -> Result<Response<v1::Client>, Status> {
        let call = Call::in_request(&request)?;
        let v1::RegisterClientRequest { client, user, groups } = request.into_inner();
        let change = ClientChange::register(user, groups)?;
        let known = self.0.change_client(call.caller(Right::Clients)?, client, change).await?;
        let gone = || Problem::new(Kind::UnknownClient, "it was registered, and has been unregistered since");
        Ok(Response::new(known.ok_or_else(gone)?.into()))
    }

    async fn unregister(
        &self,
        request: Request<v1::UnregisterClientRequest>,
    ) -> Result<Response<v1::UnregisterClientResponse>, Status> {
        let call = Call::in_request(&request)?;
        let client = request.into_inner().client;
        self.0.change_client(call.caller(Right::Clients)?, client, ClientChange::Unregister).await?;
        Ok(Response::new(v1::UnregisterClientResponse {}))
    }

    async fn list_pending(
        &self,
        request: Request<v1::ListPendingRequest>,
    ) -> Result<Response<v1::ListPendingResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Clients)?;
        let v1::ListPendingRequest { client, page_size, page_token } = request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let after = page_begin(&page_token, |text| text.parse().ok())?;
        let PendingReports { deliveries, next } = self.0.pending(&client, after, limit).await?;
        Ok(Response::new(v1::ListPendingResponse {
            deliveries: deliveries.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|next| next.to_string()).unwrap_or_default(),
        }))
    }

    async fn acknowledge_pending(
        &self,
        request: Request<v1::AcknowledgePendingRequest>,
    ) -> Result<Response<v1::AcknowledgePendingResponse>, Status> {
        let call = Call::in_request(&request)?;
        let v1::AcknowledgePendingRequest { client, deliveries } = request.into_inner();
        let caller = call.caller(Right::Clients)?;
        let Acknowledged { ended, gone } = self.0.acknowledge_pending(caller, &client, &deliveries).await?;
        let text = |ids: Vec<PendingId>| ids.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::AcknowledgePendingResponse { acknowledged: text(ended), gone: text(gone) }))
    }
}

impl Service {
    async fn act<T: Sync>(
        &self,
        request: &Request<T>,
        client: &str,
        action: ClientAction,
    ) -> Result<Response<v1::Client>, Status> {
        let call = Call::in_request(request)?;
        let report = self.0.act_on_client(call.caller(Right::Clients)?, client, action).await?;
        Ok(Response::new(report.into()))
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
        let ClientReport { client, user, groups, connected, delivery, address, backlog, session, registration, road } =
            report;
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
            delivery: delivery.map(Into::into),
        }
    }
}

impl From<PendingReport> for v1::PendingDelivery {
    fn from(PendingReport { pending, properties }: PendingReport) -> Self {
        let Pending { id, is_push, is_in_flight, message, topic, qos, retain } = pending;
        let told = v1::Message {
            topic: topic.to_string(),
            qos: Some(qos.number().into()),
            retain,
            ..told_message(&message, &properties)
        };
        Self {
            id: id.to_string(),
            message_id: message.id.to_string(),
            message: Some(told),
            is_push,
            is_in_flight,
            published_unix_ms: message.id.published_at().0,
            expires_unix_ms: message.expires_at.map(|at| at.0),
        }
    }
}

impl From<DeliveryReport> for v1::DeliveryMode {
    fn from(report: DeliveryReport) -> Self {
        let DeliveryReport { mode, allowance } = report;
        Self { mode: mode.to_owned(), allowance: allowance.map(u32::from) }
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
