//! Work that is too long for one turn: it is cut into steps of bounded size, which stand in one line. Each tick takes
//! a few; while any is left, the next tick is due at once, so that clients get their turn in between.
//!
//! Deliveries that have waited are such work: a thousand clients that come back for a thousand messages each would have the
//! shard for seconds. What comes to an empty queue leaves at once; of what waits, so many leave between two ticks
//! (`Broker::drain_quota`), and whoever would take more stands in line.

use std::collections::VecDeque;

use base::{ConnectionId, MonoMillis, QueueId};
use postroad_base as base;

use crate::broker::Broker;
use crate::giving::{Portion, Question};
use crate::session::SessionIndex;

/// Steps of one tick.
const STEPS_PER_TICK: usize = 4;
/// Steps whose room is kept when none waits any more.
const ROOM_KEPT_MAX: usize = 64;

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
    /// Put more into the batch that the old generation gets.
    Assemble,
    /// Send the connection more of what waits for it.
    Drain(ConnectionId),
}

impl Broker {
    /// When `Event::Tick` is due.
    pub fn next_deadline(&self) -> Option<MonoMillis> {
        if self.later.is_empty() { self.timers.next() } else { Some(self.now.mono) }
    }

    /// Whether steps wait for `Event::Tick`: a tick is due at once, without a timer.
    pub fn has_steps(&self) -> bool {
        !self.later.is_empty()
    }

    /// Takes the next steps. What they add to the line waits for the next tick.
    pub(crate) fn take_steps(&mut self) {
        let most = self.config.drained_per_tick;
        let step_most = most.div_ceil(STEPS_PER_TICK);
        self.drain_quota = most;
        let mut left = most;
        for _ in 0..self.later.len() {
            if left == 0 {
                break;
            }
            let Some(step) = self.later.pop_front() else { break };
            left = left.saturating_sub(self.take_step(step, step_most));
        }
        if self.later.is_empty() && self.later.capacity() > ROOM_KEPT_MAX {
            self.later = VecDeque::new();
        }
    }

    /// One step, worth as much as sending `most` deliveries; how many that was.
    fn take_step(&mut self, step: Step, most: usize) -> usize {
        match step {
            Step::Give(session, queue) => self.give_next(session, queue),
            Step::Answer(question) => self.answer_question(question),
            Step::Deliver(portion) => self.give_portion(portion),
            Step::Judge => self.judge_some(),
            Step::Assemble => self.assemble_some(),
            // Who takes few is no whole step.
            Step::Drain(connection) => return self.drain_some(connection, most).max(1),
        }
        most
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
