//! `postroad.v1.Groups`: consumer groups are made, changed, shown and ended.

use std::sync::Arc;

use postroad_proto::v1;
use tonic::{Request, Response, Status};

use super::Call;
use crate::checks::page_limit;
use crate::groups::{GroupReport, filters_of, name_of};
use crate::problem::Problem;
use crate::shared::Server;
use crate::tokens::Right;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

#[tonic::async_trait]
impl v1::groups_server::Groups for Service {
    async fn set(&self, request: Request<v1::SetGroupRequest>) -> Result<Response<v1::SetGroupResponse>, Status> {
        let call = Call::in_request(&request)?;
        let v1::SetGroupRequest { group, filters } = request.into_inner();
        let (name, filters) = (name_of(&group)?, filters_of(&filters)?);
        let is_new = self.0.api.set_group(call.caller(Right::Consume)?, &name, filters).await?;
        tracing::info!(
            group,
            caller = &*call.caller(Right::Consume)?.name,
            is_new,
            "a consumer group was set through the API"
        );
        Ok(Response::new(v1::SetGroupResponse { is_new }))
    }

    async fn list(&self, request: Request<v1::ListGroupsRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Call::in_request(&request)?.caller(Right::Consume)?;
        let v1::ListGroupsRequest { page_size, page_token } = request.into_inner();
        let limit = page_limit("page_size", page_size)?;
        let after = Some(page_token.as_str()).filter(|token| !token.is_empty());
        let groups = self.0.api.groups(after, limit).await.map_err(Problem::from)?;
        let next = groups.last().filter(|_| groups.len() == limit).map(|last| last.group.clone());
        let groups = groups.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListGroupsResponse { groups, next_page_token: next.unwrap_or_default() }))
    }

    async fn get(&self, request: Request<v1::GetGroupRequest>) -> Result<Response<v1::Group>, Status> {
        Call::in_request(&request)?.caller(Right::Consume)?;
        let report = self.0.api.group(&name_of(&request.get_ref().group)?).await?;
        Ok(Response::new(report.into()))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let call = Call::in_request(&request)?;
        let group = request.into_inner().group;
        self.0.api.delete_group(call.caller(Right::Consume)?, &name_of(&group)?).await?;
        tracing::info!(
            group,
            caller = &*call.caller(Right::Consume)?.name,
            "a consumer group was deleted through the API"
        );
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}

impl From<GroupReport> for v1::Group {
    fn from(report: GroupReport) -> Self {
        let GroupReport { group, filters, waiting, leased, bytes, waiting_consumers, oldest_unix_ms } = report;
        Self {
            group,
            filters,
            waiting: waiting as u64,
            leased: leased as u64,
            bytes: bytes as u64,
            waiting_consumers: waiting_consumers as u64,
            oldest_unix_ms,
        }
    }
}
