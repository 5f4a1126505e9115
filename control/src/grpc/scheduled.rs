//! `postroad.v1.Scheduled`: what is to be published later, and taking it back.

use std::sync::Arc;

use postroad_proto::v1;
use tonic::{Request, Response, Status};

use super::messages::told_message;
use super::{Call, page_begin};
use crate::checks::page_limit;
use crate::receipts::message_id;
use crate::scheduled::{ScheduledCursor, ScheduledEntry, WantedScheduled, deliver_at, publisher};
use crate::shared::Server;
use crate::tokens::Right;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::scheduled_server::Scheduled for Service {
    async fn list(
        &self,
        request: Request<v1::ListScheduledRequest>,
    ) -> Result<Response<v1::ListScheduledResponse>, Status> {
        let call = Call::in_request(&request)?;
        call.caller(Right::Clients)?;
        let v1::ListScheduledRequest { topic, user, client, from_unix_ms, until_unix_ms, page_size, page_token } =
            request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let from = page_begin(&page_token, ScheduledCursor::parse)?;
        let wanted = WantedScheduled { topic, user, client, from_unix_ms, until_unix_ms };
        let filter = wanted.filter(call.own_only.as_deref())?;
        let (found, next) = self.0.scheduled(&filter, from, limit).await?;
        Ok(Response::new(v1::ListScheduledResponse {
            messages: found.into_iter().map(Into::into).collect(),
            next_page_token: next.map(ScheduledCursor::text).unwrap_or_default(),
        }))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelScheduledRequest>,
    ) -> Result<Response<v1::CancelScheduledResponse>, Status> {
        let call = Call::in_request(&request)?;
        let caller = call.caller(Right::Clients)?;
        let id = message_id(&request.get_ref().message_id)?;
        self.0.cancel_scheduled(caller, id, call.own_only.as_deref()).await?;
        Ok(Response::new(v1::CancelScheduledResponse {}))
    }
}

impl From<ScheduledEntry> for v1::ScheduledMessage {
    fn from(report: ScheduledEntry) -> Self {
        let (user, client) = publisher(&report);
        let deliver_at_unix_ms = deliver_at(&report);
        let ScheduledEntry { found, properties } = report;
        let message = &found.message;
        Self {
            message_id: message.id.to_string(),
            message: Some(told_message(message, &properties)),
            user,
            client,
            published_unix_ms: message.id.published_at().0,
            deliver_at_unix_ms,
            tried_again_unix_ms: found.tried_again.map(|at| at.0),
            expires_unix_ms: message.expires_at.map(|at| at.0),
        }
    }
}
