//! `postroad.v1.Receipts`: following what becomes of messages.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::{Either, select};
use futures_util::stream::{Stream, unfold};
use postroad_base::ReceiptLevel;
use postroad_proto::v1;
use tonic::{Request, Response, Status};

use super::Call;
use super::messages::receipt_level;
use crate::history::{StepRow, Wanted};
use crate::receipts::{Begin, Came, Following, message_id};
use crate::shared::Server;
use crate::tokens::Right;

#[derive(Debug)]
pub(super) struct Service(pub Arc<Server>);

type Receipts = Pin<Box<dyn Stream<Item = Result<v1::Receipt, Status>> + Send>>;

#[tonic::async_trait]
impl v1::receipts_server::Receipts for Service {
    type FollowStream = Receipts;

    async fn follow(&self, request: Request<v1::FollowReceiptsRequest>) -> Result<Response<Receipts>, Status> {
        let call = Call::in_request(&request)?;
        call.caller(Right::Trace)?;
        let v1::FollowReceiptsRequest { message_id: message, publisher, level, after, once } = request.into_inner();
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let wanted = Wanted {
            message: given(message).as_deref().map(message_id).transpose()?,
            publisher: given(publisher),
            user: call.own_only.clone(),
            level: receipt_level(level).map_err(crate::problem::Problem::bad)?,
        };
        let following = Following::begin(&self.0, wanted, Begin { after, once }).await?;
        let server = Arc::clone(&self.0);
        let reading = Reading { following, server, call, ready: VecDeque::new(), is_over: false };
        Ok(Response::new(Box::pin(unfold(reading, Reading::next))))
    }
}

/// The receipts of a call, looked for as they are read.
struct Reading {
    following: Following,
    server: Arc<Server>,
    call: Call,
    ready: VecDeque<v1::Receipt>,
    is_over: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<v1::Receipt, Status>, Self)> {
        loop {
            if let Some(receipt) = self.ready.pop_front() {
                return Some((Ok(receipt), self));
            }
            if self.is_over {
                return None;
            }
            let came = {
                let end = pin!(self.server.end_of_stream(self.call.closing.clone(), self.call.deadline));
                match select(end, pin!(self.following.next())).await {
                    Either::Left((problem, _)) => Came::Failed(problem),
                    Either::Right((came, _)) => came,
                }
            };
            match came {
                Came::Rows(rows) => self.ready.extend(rows.into_iter().map(told)),
                Came::Nothing => {} // HTTP/2 itself looks whether the peer is there
                Came::End => return None,
                Came::Failed(problem) => {
                    self.is_over = true;
                    return Some((Err(problem.into()), self));
                }
            }
        }
    }
}

fn told(row: StepRow) -> v1::Receipt {
    let level = match row.receipt.as_deref().and_then(ReceiptLevel::from_name) {
        None => v1::wishes::Receipt::None,
        Some(ReceiptLevel::Stored) => v1::wishes::Receipt::Stored,
        Some(ReceiptLevel::Sent) => v1::wishes::Receipt::Sent,
        Some(ReceiptLevel::Acknowledged) => v1::wishes::Receipt::Acknowledged,
        Some(ReceiptLevel::Dead) => v1::wishes::Receipt::Dead,
    };
    v1::Receipt {
        position: row.position,
        message_id: row.message_id,
        topic: row.topic,
        level: level.into(),
        at_unix_ms: row.at_unix_ms,
        client: row.client.unwrap_or_default(),
        publisher: row.publisher.unwrap_or_default(),
        user: row.user.unwrap_or_default(),
        attempts: row.attempts.unwrap_or_default(),
        reason: row.reason.unwrap_or_default(),
        reason_code: row.reason_code.unwrap_or_default().into(),
        group: row.group.unwrap_or_default(),
        original_id: row.original_id.unwrap_or_default(),
        letter: row.letter.unwrap_or_default(),
    }
}
