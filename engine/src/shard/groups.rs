//! What the API asks of consumer groups: what waits for a commit, or for something to come, is answered later.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use postroad_base::{GroupAnswer, GroupOrder, TopicFilter, Verdict};
use postroad_broker::api::{Event, Principal};
use postroad_broker::clients::QueueState;
use postroad_broker::consumers::GroupState;
use postroad_control::{Caller, GroupLeft, GroupQuestion, GroupReport, GroupResult, GroupsQuestion, LeasedReport};

use super::Shard;
use super::letters::properties_of;

/// Who waits for an answer, by token.
#[derive(Debug, Default)]
pub(super) struct Consuming {
    last: u64,
    asked: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    name: ByteString,
    caller: Caller,
    answer: flume::Sender<GroupResult>,
    /// It may have to wait for something to come.
    is_take: bool,
}

impl Shard {
    pub(super) fn order_of_group(&mut self, question: GroupQuestion) {
        let GroupQuestion { name, caller, order, answer } = question;
        self.consuming.last += 1;
        let token = self.consuming.last;
        let is_take = matches!(order, GroupOrder::Take(_));
        self.give_group_order(token, &name, &caller, order);
        self.consuming.asked.insert(token, Asked { name, caller, answer, is_take });
        self.drain_effects();
    }

    fn give_group_order(&mut self, token: u64, name: &ByteString, caller: &Caller, order: GroupOrder) {
        let Caller { name: user, groups } = caller.clone();
        let caller = Principal { user: Some(user), groups };
        self.handle(Event::Group { token, name: name.clone(), caller, order: Box::new(order) });
    }

    /// Whoever waits for the answer to a take is gone. If the answer has come to where nobody takes it, what it leases was not given;
    /// else the take is withdrawn, with those of all others who are gone.
    pub(super) fn group_left(&mut self, left: GroupLeft) {
        let GroupLeft { name, caller, unread } = left;
        if let Ok(GroupResult::Taken(leased)) = unread.try_recv() {
            self.untake(&name, &caller, &leased);
        }
        drop(unread);
        let gone = self.consuming.asked.iter().filter(|(_, asked)| asked.is_take && asked.answer.is_disconnected());
        let gone: Vec<(u64, ByteString)> = gone.map(|(token, asked)| (*token, asked.name.clone())).collect();
        for (token, name) in gone {
            self.handle(Event::GroupLeft { token, name });
        }
        self.drain_effects();
    }

    fn untake(&mut self, name: &ByteString, caller: &Caller, leased: &[LeasedReport]) {
        if !leased.is_empty() {
            let deliveries = leased.iter().map(|report| report.leased.id).collect();
            let order = GroupOrder::Answer { deliveries, verdict: Verdict::Untaken };
            self.give_group_order(0, name, caller, order); // nobody has this token
        }
    }

    /// What was leased for somebody who is gone was not given.
    pub(super) fn group_done(&mut self, token: u64, answer: GroupAnswer) {
        let Some(Asked { name, caller, answer: asker, .. }) = self.consuming.asked.remove(&token) else { return };
        let result = match answer {
            GroupAnswer::Taken(leased) => {
                let report = |leased: postroad_base::Leased| {
                    let properties = Arc::new(properties_of(&leased.message.properties));
                    LeasedReport { leased, properties }
                };
                GroupResult::Taken(leased.into_iter().map(report).collect())
            }
            other => GroupResult::Other(other),
        };
        if let Err(
            flume::TrySendError::Disconnected(GroupResult::Taken(leased))
            | flume::TrySendError::Full(GroupResult::Taken(leased)),
        ) = asker.try_send(result)
        {
            self.untake(&name, &caller, &leased);
        }
    }

    /// Whether somebody is to hear that something is done, once it is committed.
    pub(super) fn consumers_are_owed(&self) -> bool {
        self.consuming.asked.values().any(|asked| !asked.is_take)
    }

    pub(super) fn find_groups(&self, question: GroupsQuestion) {
        let GroupsQuestion { after, limit, answer } = question;
        let found = self.broker.group_states(after.as_deref()).take(limit).map(report).collect();
        let _gone = answer.try_send(found);
    }

    pub(super) fn tell_of_group(&self, name: &str, answer: &flume::Sender<Option<GroupReport>>) {
        let _gone = answer.try_send(self.broker.group_state(name).map(report));
    }
}

fn report(state: GroupState) -> GroupReport {
    let GroupState { name, filters, queue, waiting_consumers, oldest } = state;
    let QueueState { waiting, in_flight, bytes } = queue;
    GroupReport {
        group: name.to_string(),
        filters: filters.iter().map(TopicFilter::to_string).collect(),
        waiting,
        leased: in_flight,
        bytes,
        waiting_consumers,
        oldest_unix_ms: oldest.map(|at| at.0),
    }
}
