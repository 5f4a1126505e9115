//! Dead letters and plugins: each new letter is shown to them once, in a turn of its own, and what they say is done as if somebody had asked for it.
//!
//! Crash story: a letter is written down before plugins see it. Killed in between, it stays as it is, and nobody shows it to them again: a human, an
//! application or `postroad plugin try --letters` finds it. What is published in the place of a letter ends it only once somebody has it.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{
    ClientId, Death, Ended, Extras, LetterAction, LetterId, Message, Outcome, QueueId, Sequence, ShardId, Step, Wishes,
};
use bytestring::ByteString;
use postroad_base as base;

use super::{Answer, Repair};
use crate::api::Counted;
use crate::broker::Broker;
use crate::letters::{NOBODY, is_of_server};
use crate::mesh::{Pending, Token};
use crate::route::{Match, Origin};

/// Letters that one tick shows.
const SHOWN_PER_TICK: usize = 16;

/// Letters that plugins are to see, and what they want published in the place of one.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    new: VecDeque<(LetterId, Arc<Message>)>,
    /// Waits for credit.
    decided: VecDeque<(LetterId, Arc<Message>)>,
    /// To this shard.
    lacks: Option<ShardId>,
}

impl Repairs {
    pub fn has_steps(&self) -> bool {
        self.lacks.is_none() && !(self.new.is_empty() && self.decided.is_empty())
    }
}

impl Broker {
    /// A letter was made.
    pub(crate) fn show_letter_later(&mut self, id: LetterId, message: &Arc<Message>) {
        let wanted = self.hooks.as_ref().is_some_and(|hooks| hooks.wants_letters(message.topic.as_str()));
        if !wanted || is_of_server(&message.topic) {
            return;
        }
        if self.repairs.new.len() >= self.config.deferred_max {
            return self.count(Counted::PluginRepairFailed);
        }
        self.repairs.new.push_back((id, Arc::clone(message)));
    }

    /// Shows some to the plugins.
    pub(crate) fn show_letters(&mut self) {
        for _ in 0..SHOWN_PER_TICK {
            if self.repairs.lacks.is_some() {
                break; // what has been decided waits: it is bounded by what is shown
            }
            let Some((id, message)) = self.repairs.new.pop_front() else { break };
            self.show_letter(id, &message);
        }
        self.publish_repaired();
    }

    fn show_letter(&mut self, id: LetterId, message: &Arc<Message>) {
        let Self { hooks: Some(hooks), now, .. } = self else { return };
        let Answer { answer, publish } = hooks.dead_letter(*now, message);
        let repeats = publish.into_iter().map(|made| repeat_of(message, made)).collect();
        self.publish_for_plugins(repeats);
        let action = match answer {
            Repair::Keep => return,
            Repair::Requeue(requeue) => LetterAction::Requeue(requeue),
            Repair::Drop => LetterAction::Drop,
            Repair::Park(note) => LetterAction::Park { note },
            Repair::Publish(made) => {
                let made = self.in_place_of(message, *made);
                return self.repairs.decided.push_back((id, made));
            }
        };
        self.act_on_letter(NOBODY, id, action);
    }

    /// What is published in the place of a letter repeats it.
    fn in_place_of(&mut self, letter: &Message, made: Message) -> Arc<Message> {
        let id = self.ids.next(self.now.wall);
        Arc::new(Message { id, publisher: QueueId::NONE, ..repeat_of(letter, made) })
    }

    /// A credit of this shard has come back.
    pub(crate) fn repairs_go_on(&mut self, from: ShardId) {
        if self.repairs.lacks.take_if(|shard| *shard == from).is_some() {
            self.publish_repaired();
        }
    }

    fn publish_repaired(&mut self) {
        if self.repairs.lacks.is_some() {
            return;
        }
        while let Some((id, message)) = self.repairs.decided.pop_front() {
            if let Err(shard) = self.publish_in_place(id, &message) {
                self.repairs.lacks = Some(shard);
                return self.repairs.decided.push_front((id, message));
            }
        }
    }

    /// Publishes it; the letter is over once somebody has it. Gives back the shard whose credit is lacking.
    fn publish_in_place(&mut self, id: LetterId, message: &Arc<Message>) -> Result<(), ShardId> {
        if self.has_too_many_levels(message.topic.as_str()) || self.lacks_room(message).is_some() {
            self.count(Counted::PluginRepairFailed);
            return Ok(());
        }
        self.collect(message, Origin::Here);
        if let Some(shard) = self.lacking_credit(message) {
            return Err(shard);
        }
        if self.scratch.refusal.is_some() || self.must_reject(message) {
            self.count(Counted::PluginRepairFailed);
            return Ok(());
        }
        let routed = self.route(Arc::clone(message), false);
        match routed.token.and_then(|token| self.mesh.tokens.get_mut(&token)) {
            Some(Token::Publish(pending)) => pending.letter = Some(id),
            _ if routed.reason == base::ReasonCode::Success => self.act_on_letter(NOBODY, id, LetterAction::Drop),
            _ => self.count(Counted::PluginRepairFailed),
        }
        Ok(())
    }

    /// All shards have answered for what was published in the place of a letter.
    pub(crate) fn repair_concluded(&mut self, letter: LetterId, pending: &Pending) {
        if pending.refusal.is_none() && pending.matched {
            self.act_on_letter(NOBODY, letter, LetterAction::Drop);
        } else {
            self.count(Counted::PluginRepairFailed);
        }
    }

    /// A publish becomes a dead letter for a human; what is to be committed before its publisher is told, or `None` if there is no room.
    pub(crate) fn quarantine(&mut self, message: &Message, client: ClientId, note: ByteString) -> Option<Sequence> {
        if self.config.limits.letters_max == 0 || self.disk_full {
            return None;
        }
        let death = Death {
            client,
            is_push: false,
            is_group: false,
            outcome: Outcome::Quarantined,
            reason_code: 0,
            attempts: 0,
            sent: None,
            at: self.now.wall,
            error: None,
        };
        let known = message.extras.as_deref().cloned().unwrap_or_default();
        let extras = Extras { death: Some(Box::new(death)), ..known };
        let letter = Arc::new(Message { extras: Some(Box::new(extras)), ..message.clone() });
        self.keep_letter(letter, Some(note));
        Some(if self.config.durable { self.gate.appended() } else { Sequence(0) })
    }

    /// Whoever plugins leave out does not get it.
    #[cold]
    pub(crate) fn leave_out_for_plugins(&mut self, message: &Arc<Message>, matches: &mut Vec<Match>) {
        let Self { hooks: Some(hooks), sessions, now, scratch, .. } = self else { return };
        let is_of_server = message.publisher == QueueId::NONE; // also what a plugin has made besides
        if matches.is_empty() || is_of_server || !hooks.wants_deliveries(scratch.stamp, message.topic.as_str()) {
            return;
        }
        let names: Vec<&ClientId> = matches.iter().map(|m| &sessions[m.session as usize].client).collect();
        let left_out = hooks.deliver(*now, scratch.stamp, message, &names);
        for &place in &left_out {
            let Some(Match { session, .. }) = matches.get(place) else { continue };
            let session = *session;
            self.note_live(session, message, false);
            if self.is_followed(message) {
                let step = Step::Over { how: Ended::LeftOut, reason_code: 0, attempts: 0 };
                self.tell_of(session, message, step);
            }
        }
        self.count_by(Counted::PluginLeftOut, left_out.len() as u64);
        let mut place = 0;
        matches.retain(|_| {
            place += 1;
            left_out.binary_search(&(place - 1)).is_err()
        });
    }
}

/// What a plugin makes of a letter counts as a repeat of it: else a plugin that publishes what dies again would never end.
fn repeat_of(letter: &Message, made: Message) -> Message {
    let extras = Extras {
        original: Some(letter.original()),
        requeues: letter.requeues().saturating_add(1),
        wishes: made.wishes().map(Wishes::of_repeat).unwrap_or_default(),
        ..Extras::default()
    };
    Message { extras: Some(Box::new(extras)), ..made }
}
