//! What becomes of a letter: one record each, so that no crash leaves half of it. Whoever comes second finds it gone.

use std::sync::Arc;

use base::{
    ClientId, Death, Ended, Extras, LetterAction, LetterAnswer, LetterId, Message, Outcome, Recipient, Record, Requeue,
    Sequence, Step, Wishes,
};
use postroad_base as base;

use super::walk::{Job, Portion, Progress};
use crate::api::{Counted, Effect};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::queue::Entry;
use crate::recover::take_young;
use crate::retire::entry_of;
use crate::session::SessionIndex;

/// The token of an action whose end nobody hears: a plugin wants it.
pub(crate) const NOBODY: u64 = u64::MAX;

/// An action that is asked for.
#[derive(Debug)]
pub(super) struct Action {
    token: u64,
    id: LetterId,
    action: LetterAction,
}

impl Broker {
    pub(crate) fn act_on_letter(&mut self, token: u64, id: LetterId, action: LetterAction) {
        self.start_letters_job(Job::Act(Action { token, id, action }));
    }

    /// Acts on the letter where it is; if it is stored, on what has been read.
    pub(super) fn act_or_read(&mut self, action: Action, portion: Option<Portion<'_>>) -> Progress {
        let Action { token, id, .. } = action;
        let Some(&index) = self.letters.queues.get(&id.queue) else {
            return self.letter_done(token, LetterAnswer::Gone);
        };
        if let Some(portion) = portion {
            return match portion.entries.first().filter(|item| item.sequence == id.sequence) {
                Some(item) => self.act(action, index, &entry_of(item.clone())),
                None => self.letter_done(token, LetterAnswer::Gone),
            };
        }
        let young = self.sessions[index as usize].queue.young.normal();
        if let Ok(place) = young.binary_search_by_key(&id.sequence, |entry| entry.sequence) {
            let entry = young[place].clone();
            return self.act(action, index, &entry);
        }
        let after = Sequence(id.sequence.0.saturating_sub(1));
        if id.sequence > Sequence(0) && self.stored_behind(index, after).is_some() {
            return Progress::Read { job: Job::Act(action), queue: index, after, most: 1 };
        }
        self.letter_done(token, LetterAnswer::Gone)
    }

    fn act(&mut self, action: Action, index: SessionIndex, entry: &Entry) -> Progress {
        let Action { token, id, action } = action;
        let answer = match action {
            LetterAction::Show => LetterAnswer::Letter(Box::new(self.letter_of_entry(id, entry))),
            LetterAction::Requeue(requeue) => self.requeue(index, id, entry, requeue),
            LetterAction::Drop => {
                self.end_letter(index, entry, Outcome::Dropped);
                LetterAnswer::Done(None)
            }
            LetterAction::Park { note } => {
                self.park(index, id, Some(note));
                LetterAnswer::Done(None)
            }
            LetterAction::Unpark => {
                if self.letters.parked.contains_key(&id) {
                    self.park(index, id, None);
                }
                LetterAnswer::Done(None)
            }
            LetterAction::Release => {
                self.letters.leases.remove(&id);
                LetterAnswer::Done(None)
            }
        };
        self.letter_done(token, answer)
    }

    /// Told once all that has been done is safe.
    fn letter_done(&mut self, token: u64, answer: LetterAnswer) -> Progress {
        if token == NOBODY {
            if !matches!(answer, LetterAnswer::Done(_)) {
                self.count(Counted::PluginRepairFailed);
            }
            return Progress::Done;
        }
        self.after_commit(Waiter::Emit(Box::new(Effect::LetterDone { token, answer })));
        Progress::Done
    }

    /// A letter is over.
    pub(super) fn end_letter(&mut self, index: SessionIndex, entry: &Entry, outcome: Outcome) {
        self.take_letter(index, entry);
        self.settle(index, entry.sequence, entry.stored, outcome);
        if self.is_followed(&entry.message) {
            let letter = LetterId { queue: self.sessions[index as usize].id, sequence: entry.sequence };
            self.tell_of_letter(&entry.message, Step::LetterOver { letter, how: Ended::With(outcome) });
        }
    }

    /// It leaves its queue, as far as that is in memory.
    fn take_letter(&mut self, index: SessionIndex, entry: &Entry) {
        let session = &mut self.sessions[index as usize];
        self.letters.forget(LetterId { queue: session.id, sequence: entry.sequence });
        if take_young(&mut session.queue, entry.sequence).is_none()
            && let Some(backlog) = &mut session.queue.backlog
        {
            backlog.one_less(Some(entry.size()));
        }
    }

    fn requeue(&mut self, index: SessionIndex, id: LetterId, entry: &Entry, requeue: Requeue) -> LetterAnswer {
        let Some(death) = entry.message.death() else { return LetterAnswer::Gone };
        let Some(target) = self.queue_to_requeue(death) else { return LetterAnswer::NoClient };
        let message = self.requeued(&entry.message, requeue);
        let to = &self.sessions[target as usize];
        if self.disk_full || to.queue.is_full(message.size(), &self.config) {
            return LetterAnswer::QueueFull;
        }
        let (new_id, message) = (message.id, Arc::new(message));
        let mut delivery = Entry { message: Arc::clone(&message), stored: false, dup: false, ..entry.clone() };
        let recipient = Recipient { given: true, ..delivery.recipient(to.id) }; // no publisher repeats it
        let (is_kept, LetterId { queue, sequence: of }) = (to.logged, id);
        self.take_letter(index, entry);
        let outcome = Outcome::Requeued;
        delivery.sequence = if is_kept {
            let recipients = vec![recipient];
            self.append(Record::Transfer { queue, sequence: of, outcome, message, recipients })
        } else {
            if self.config.durable {
                self.append(Record::Settle { queue, sequence: of, outcome });
            }
            self.position()
        };
        self.note_ended(index, of, entry.stored, outcome);
        if self.is_followed(&delivery.message) {
            self.tell_of_letter(&entry.message, Step::Requeued { letter: id, id: new_id });
            self.tell_published(&delivery.message);
            self.tell_of(target, &delivery.message, Step::Queued);
        }
        self.arrive(target, delivery);
        LetterAnswer::Done(Some(new_id))
    }

    /// To whom it was to go stands in the letter.
    fn tell_of_letter(&mut self, message: &Arc<Message>, step: Step) {
        self.tell(message, message.death().map(Death::addressee), step);
    }

    /// Where the client of a letter gets it again: where it was, or else in its other queue.
    fn queue_to_requeue(&mut self, death: &Death) -> Option<SessionIndex> {
        let ClientId(name) = &death.client;
        if death.is_group {
            return self.consumers.find(name);
        }
        if death.outcome == Outcome::Quarantined {
            return None; // it was to go to a topic, and this is who published it
        }
        let session = self.session_of_client(name);
        let registration = self.registrations.find(name);
        match (session, registration) {
            (Some(session), None) => Some(session),
            (Some(session), Some(_)) if !death.is_push => Some(session),
            (_, registration) => registration.map(|registration| self.registration_queue(registration)),
        }
    }

    fn requeued(&mut self, message: &Message, requeue: Requeue) -> Message {
        let Requeue { payload, ttl_seconds } = requeue;
        let extras = Extras {
            death: None,
            original: Some(message.original()),
            requeues: message.requeues().saturating_add(1),
            letter: None,
            wishes: message.wishes().map(Wishes::of_repeat).unwrap_or_default(),
            scheduled_by: None,
        };
        Message {
            id: self.ids.next(self.now.wall),
            payload: payload.unwrap_or_else(|| message.payload.clone()),
            expires_at: ttl_seconds.map(|seconds| self.now.wall.after(u64::from(seconds) * 1000)),
            extras: Some(Box::new(extras)),
            ..message.clone()
        }
    }
}
