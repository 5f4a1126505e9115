//! Work that is too long for one turn: it is cut into steps of bounded size, which stand in one line. Each tick takes
//! a few; while any is left, the next tick is due at once, so that clients get their turn in between.
//!
//! Deliveries that have waited are such work: a thousand clients that come back for a thousand messages each would have the
//! shard for seconds. What comes to an empty queue leaves at once; of what waits, so many leave between two ticks
//! (`Broker::drain_quota`), and whoever would take more stands in a line of its own. What had waited when its client came back
//! has a lane with another line and another budget (`drain`), and so has what is sent again (`resend`).

use std::collections::VecDeque;

use base::{MonoMillis, QueueId};
use postroad_base as base;

use crate::broker::Broker;
use crate::giving::{Portion, Question};
use crate::session::{ConnectionIndex, SessionIndex};

/// Steps of one tick, beside the drains and the retirement.
const STEPS_PER_TICK: usize = 4;
/// Connections in line that one tick serves at least, if each takes its share.
pub(crate) const DRAINS_PER_TICK: usize = 4;
/// What has come behind others counts up to so many times the usual: without anybody in line no tick may come for long.
pub(crate) const ARRIVED_TIMES_MAX: usize = 16;
/// Steps whose room is kept when none waits any more.
pub(crate) const ROOM_KEPT_MAX: usize = 64;

/// A piece of long work.
#[derive(Debug)]
pub(crate) enum Step {
    /// Ask for the next retained messages for this session's new subscriptions.
    Give(SessionIndex, QueueId),
    /// Look for retained messages that somebody asked for.
    Answer(Question),
    /// Give these to the session.
    Deliver(Portion),
    /// Judge the subscriptions of the next sessions by the access rules.
    Judge,
    /// Drop more of what this queue has overflowed with.
    Drop(SessionIndex, QueueId),
}

impl Broker {
    /// When `Event::Tick` is due.
    pub fn next_deadline(&self) -> Option<MonoMillis> {
        if self.has_steps() {
            return Some(self.now.mono);
        }
        [
            self.timers.next(),
            self.drain.due(&self.config),
            self.overdue.next(),
            self.resends.due(),
            self.scheduled_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether steps wait for `Event::Tick`: a tick is due at once, without a timer.
    pub fn has_steps(&self) -> bool {
        let letters = self.letters.has_steps() || self.keys.has_steps() || self.repairs.has_steps();
        let lanes = [self.drain.due(&self.config), self.resends.due(), self.scheduled_due()];
        let lanes = lanes.into_iter().flatten().any(|at| at <= self.now.mono);
        letters
            || lanes
            || self.desk_is_due()
            || !self.later.is_empty()
            || !self.draining.is_empty()
            || self.retiring.has_steps()
    }

    /// Takes the next steps, of each kind some, so that none waits for a crowd of another. What they add to the line waits for
    /// the next tick.
    pub(crate) fn take_steps(&mut self) {
        self.retire_some();
        self.announce_some();
        self.do_letters_jobs();
        self.show_letters();
        self.publish_due();
        self.serve_desk();
        if self.keys.has_steps() {
            self.forget_old_keys();
        }
        for _ in 0..self.later.len().min(STEPS_PER_TICK) {
            let Some(step) = self.later.pop_front() else { break };
            match step {
                Step::Give(session, queue) => self.give_next(session, queue),
                Step::Answer(question) => self.answer_question(question),
                Step::Deliver(portion) => self.give_portion(portion),
                Step::Judge => self.judge_some(),
                Step::Drop(session, queue) => self.drop_some_overflown(session, queue),
            }
        }
        self.drain_some();
        self.resend_some();
        self.drain_returned();
        shrink(&mut self.later);
        shrink(&mut self.draining);
    }

    /// Each connection may take more again: all stand in line.
    pub(crate) fn all_may_drain(&mut self) {
        let idle = self.connections.iter().filter(|(_, connection)| !connection.is_draining);
        let idle: Vec<_> = idle.map(|(place, _)| place as ConnectionIndex).collect();
        idle.into_iter().for_each(|place| self.stand_in_line(place));
    }

    /// Sends what waits to the connections that are first in line.
    fn drain_some(&mut self) {
        let usual = self.config.drained_per_tick;
        let mut left = usual + std::mem::take(&mut self.arrived_behind).min(ARRIVED_TIMES_MAX * usual);
        self.drain_quota = left;
        let share = (left / self.draining.len().max(1)).max(usual.div_ceil(DRAINS_PER_TICK));
        for _ in 0..self.draining.len() {
            let Some(connection) = self.draining.pop_front_if(|_| left > 0) else { break };
            let sent = self.drain(connection, left.min(share));
            left -= sent.clamp(1, left); // who takes none has cost something, too
        }
    }
}

/// Gives the room of a line that was long back.
fn shrink<T>(line: &mut VecDeque<T>) {
    if line.is_empty() && line.capacity() > ROOM_KEPT_MAX {
        *line = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use base::{Now, Placement, Sequence, ShardId};

    use super::*;
    use crate::api::Event;
    use crate::config::Config;

    #[test]
    fn a_long_line_gives_its_room_back() {
        let config = Config::new(ShardId(0), Placement::new(16, 1, [3; 16]), false, 7);
        let mut broker = Broker::new(config, Sequence(1));
        broker.later.extend((0..10_000).map(|_| Step::Give(0, QueueId::NONE)));
        while broker.has_steps() {
            broker.handle(Now::default(), Event::Tick);
        }
        assert!(broker.later.capacity() <= ROOM_KEPT_MAX, "{}", broker.later.capacity());
    }
}
