//! What the API asks of messages that wait for their time: the broker may have to read first, so that answers come later.

use std::collections::BTreeMap;
use std::sync::Arc;

use postroad_base::{CancelAnswer, ScheduledMessage, ScheduledPage};
use postroad_broker::api::Event;
use postroad_control::{CancelOrder, ScheduledEntries, ScheduledEntry, ScheduledQuestion};

use super::Shard;
use super::letters::properties_of;

/// Who waits for an answer, by token.
#[derive(Debug, Default)]
pub(super) struct Asking {
    last: u64,
    found: BTreeMap<u64, flume::Sender<Option<ScheduledEntries>>>,
    cancelled: BTreeMap<u64, flume::Sender<CancelAnswer>>,
}

impl Asking {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Shard {
    pub(super) fn find_scheduled(&mut self, question: ScheduledQuestion) {
        let ScheduledQuestion { query, answer } = question;
        let token = self.scheduled.next();
        self.scheduled.found.insert(token, answer);
        self.handle(Event::FindScheduled { token, query: Box::new(query) });
        self.drain_effects();
    }

    pub(super) fn cancel_scheduled(&mut self, order: CancelOrder) {
        let CancelOrder { id, of, answer } = order;
        let token = self.scheduled.next();
        self.scheduled.cancelled.insert(token, answer);
        self.handle(Event::Cancel { token, id, of });
        self.drain_effects();
    }

    pub(super) fn scheduled_found(&mut self, token: u64, page: Option<ScheduledPage>) {
        let Some(answer) = self.scheduled.found.remove(&token) else { return };
        let entry = |found: ScheduledMessage| {
            let properties = Arc::new(properties_of(&found.message.properties));
            ScheduledEntry { found, properties }
        };
        let entries = page.map(|ScheduledPage { messages, next }| ScheduledEntries {
            messages: messages.into_iter().map(entry).collect(),
            next,
        });
        let _gone = answer.try_send(entries);
    }

    pub(super) fn scheduled_cancelled(&mut self, token: u64, outcome: CancelAnswer) {
        if let Some(answer) = self.scheduled.cancelled.remove(&token) {
            let _gone = answer.try_send(outcome);
        }
    }
}
