//! `postroad.v1.Topics`: who asks for what, and which messages are retained.

use std::sync::Arc;

use postroad_proto::v1;
use tonic::{Request, Response, Status};

use super::{Call, page_begin};
use crate::checks::page_limit;
use crate::problem::Problem;
use crate::shared::Server;
use crate::tokens::Right;
use crate::topics::{
    FilterReport, FiltersWanted, RetainedCursor, RetainedReport, SubscriptionReport, SubscriptionsCursor,
    SubscriptionsFilter, filter_of,
};

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::topics_server::Topics for Service {
    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Clients)?;
        let v1::ListSubscriptionsRequest { client, filter, topic, page_size, page_token } = request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let from = page_begin(&page_token, SubscriptionsCursor::parse)?;
        let filter = SubscriptionsFilter::of(client, filter.as_deref(), topic.as_deref())?;
        let (found, next) = self.0.api.subscriptions(&filter, from, limit).await.map_err(Problem::from)?;
        Ok(Response::new(v1::ListSubscriptionsResponse {
            subscriptions: found.into_iter().map(Into::into).collect(),
            next_page_token: next.map(SubscriptionsCursor::text).unwrap_or_default(),
        }))
    }

    async fn list_filters(
        &self,
        request: Request<v1::ListFiltersRequest>,
    ) -> Result<Response<v1::ListFiltersResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Clients)?;
        let v1::ListFiltersRequest { prefix, topic, page_size, page_token } = request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let after = page_begin(&page_token, FiltersWanted::parse)?;
        let wanted = FiltersWanted::of(prefix, topic.as_deref(), after)?;
        let (found, next) = self.0.api.filters(&wanted, limit).await.map_err(Problem::from)?;
        Ok(Response::new(v1::ListFiltersResponse {
            filters: found.into_iter().map(Into::into).collect(),
            next_page_token: next.as_ref().map(FiltersWanted::text_of).unwrap_or_default(),
        }))
    }

    async fn list_retained(
        &self,
        request: Request<v1::ListRetainedRequest>,
    ) -> Result<Response<v1::ListRetainedResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Clients)?;
        let v1::ListRetainedRequest { filter, page_size, page_token } = request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let from = page_begin(&page_token, RetainedCursor::parse)?.unwrap_or_default();
        let filter = filter_of(filter.as_deref().unwrap_or("#"))?;
        let (found, next) = self.0.api.retained(&filter, from, limit).await.map_err(Problem::from)?;
        Ok(Response::new(v1::ListRetainedResponse {
            topics: found.into_iter().map(Into::into).collect(),
            next_page_token: next.map(RetainedCursor::text).unwrap_or_default(),
        }))
    }
}

impl From<SubscriptionReport> for v1::Subscription {
    fn from(report: SubscriptionReport) -> Self {
        let SubscriptionReport { client, filter, qos, no_local, retain_as_published, identifier } = report;
        Self { client, filter, qos: qos.into(), no_local, retain_as_published, identifier }
    }
}

impl From<FilterReport> for v1::Filter {
    fn from(report: FilterReport) -> Self {
        let FilterReport { filter, count } = report;
        Self { filter, subscribers: count.subscribers, groups: count.groups }
    }
}

impl From<RetainedReport> for v1::RetainedTopic {
    fn from(report: RetainedReport) -> Self {
        let RetainedReport { topic, id, qos, bytes, published_unix_ms, expires_unix_ms } = report;
        Self { topic, id, qos: qos.into(), bytes: bytes as u64, published_unix_ms, expires_unix_ms }
    }
}
