//! What the API asks of deliveries that wait for a client: the broker may have to read first, so that answers come later.

use std::collections::BTreeMap;
use std::sync::Arc;

use postroad_base::{PendingAnswer, PendingPage};
use postroad_broker::api::Event;
use postroad_control::{PendingOrder, PendingQuestion, PendingReport, PendingReports};

use super::Shard;
use super::letters::properties_of;

/// Who waits for an answer, by token.
#[derive(Debug, Default)]
pub(super) struct Looking {
    last: u64,
    shown: BTreeMap<u64, flume::Sender<Option<PendingReports>>>,
    ended: BTreeMap<u64, flume::Sender<PendingAnswer>>,
}

impl Looking {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Shard {
    pub(super) fn show_pending(&mut self, question: PendingQuestion) {
        let PendingQuestion { client, after, limit, answer } = question;
        let token = self.looking.next();
        self.looking.shown.insert(token, answer);
        self.handle(Event::Peek { token, client, after, limit });
        self.drain_effects();
    }

    pub(super) fn end_pending(&mut self, order: PendingOrder) {
        let PendingOrder { client, ids, answer } = order;
        let token = self.looking.next();
        self.looking.ended.insert(token, answer);
        self.handle(Event::EndPending { token, client, ids });
        self.drain_effects();
    }

    pub(super) fn peeked(&mut self, token: u64, page: Option<PendingPage>) {
        let Some(answer) = self.looking.shown.remove(&token) else { return };
        let reports = page.map(|PendingPage { deliveries, next }| {
            let report = |pending: postroad_base::Pending| {
                let properties = Arc::new(properties_of(&pending.message.properties));
                PendingReport { pending, properties }
            };
            PendingReports { deliveries: deliveries.into_iter().map(report).collect(), next }
        });
        let _gone = answer.try_send(reports);
    }

    pub(super) fn pending_ended(&mut self, token: u64, outcome: PendingAnswer) {
        if let Some(answer) = self.looking.ended.remove(&token) {
            let _gone = answer.try_send(outcome);
        }
    }
}
