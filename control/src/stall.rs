//! Which shards take no turns. Without I/O or clock: [`crate::server`] sends, waits, and asks here.

use std::time::{Duration, Instant};

use postroad_base::ShardId;

use crate::line::Line;
use crate::report::Request;

/// What is known of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    /// When it was asked for the sign of life that it has not given yet.
    asked: Option<Instant>,
    /// The question is in its queue; else there was no room for it yet.
    sent: bool,
    /// It was told as stalled.
    told: bool,
}

/// Signs of life of all shards.
#[derive(Debug)]
pub struct Watch {
    patience: Duration,
    pulses: Vec<Pulse>,
    answer: flume::Sender<ShardId>,
    answers: flume::Receiver<ShardId>,
}

impl Watch {
    /// A shard counts as stalled once it has given no sign for `patience`.
    pub fn new(patience: Duration) -> Self {
        let (answer, answers) = flume::bounded(0);
        Self { patience, pulses: Vec::new(), answer, answers }
    }

    /// Asks each shard that owes no answer. One whose questions pile up counts as asked, one that has ended does not.
    pub fn ask(&mut self, shards: &[Line], now: Instant) {
        if shards.len() != self.pulses.len() {
            // Each has at most one question: there is always room for the answer.
            (self.answer, self.answers) = flume::bounded(shards.len().max(1));
            self.pulses = vec![Pulse::default(); shards.len()];
        }
        for (pulse, shard) in self.pulses.iter_mut().zip(shards) {
            if shard.is_dead() {
                *pulse = Pulse::default();
            } else if !pulse.sent {
                pulse.sent = shard.ask(Request::Ping(self.answer.clone()));
                pulse.asked = pulse.asked.or(Some(now));
            }
        }
    }

    /// Where the answers come.
    pub fn answers(&self) -> &flume::Receiver<ShardId> {
        &self.answers
    }

    /// A shard has given a sign of life.
    pub fn answered(&mut self, shard: usize, now: Instant) {
        let Some(pulse) = self.pulses.get_mut(shard) else { return };
        if std::mem::take(&mut pulse.told)
            && let Some(asked) = pulse.asked
        {
            let took = now.duration_since(asked);
            tracing::warn!(shard, ?took, "the shard turns again");
        }
        (pulse.asked, pulse.sent) = (None, false);
    }

    /// The shards that have given none for too long; each stall is logged once.
    pub fn stalled(&mut self, now: Instant) -> Vec<usize> {
        let mut stalled = Vec::new();
        for (shard, pulse) in self.pulses.iter_mut().enumerate() {
            let Some(silent) = pulse.asked.map(|asked| now.duration_since(asked)) else { continue };
            if silent < self.patience {
                continue;
            }
            stalled.push(shard);
            if !std::mem::replace(&mut pulse.told, true) {
                tracing::warn!(shard, ?silent, "the shard takes no turn: its clients wait");
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    /// Nobody needs a bell here: the test looks into the queue.
    fn line(places: usize) -> (Line, flume::Receiver<Request>) {
        let (queue, questions) = flume::bounded(places);
        (Line::new(queue, || ()), questions)
    }

    #[test]
    fn a_shard_is_stalled_from_its_patience_on_until_it_answers() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let (shards, questions): (Vec<_>, Vec<_>) = (0..2).map(|_| line(4)).unzip();
        let mut watch = Watch::new(PATIENCE);
        watch.ask(&shards, at(0));
        watch.answered(0, at(1));
        assert!(watch.stalled(at(999)).is_empty());
        watch.ask(&shards, at(500));
        assert_eq!(watch.stalled(at(1000)), [1]);
        assert_eq!(questions.iter().map(flume::Receiver::len).collect::<Vec<_>>(), [2, 1], "one question at a time");
        assert_eq!(watch.stalled(at(1500)), [0, 1]);
        watch.answered(1, at(1600));
        watch.answered(0, at(1600));
        assert!(watch.stalled(at(9000)).is_empty(), "nobody is asked");
    }

    #[test]
    fn a_shard_that_ended_is_not_stalled_and_one_with_full_ears_is() {
        let begin = Instant::now();
        let (ended, gone) = line(1);
        let (full, kept) = line(1);
        let mut watch = Watch::new(PATIENCE);
        assert!(full.ask(Request::Ping(flume::bounded(1).0)), "room for one");
        let shards = [ended, full];
        watch.ask(&shards, begin);
        drop(gone);
        watch.ask(&shards, begin);
        assert_eq!(watch.stalled(begin + PATIENCE), [1]);
        // There is room again: it is asked, and is well once it has answered.
        drop(kept.try_recv());
        watch.ask(&shards, begin + PATIENCE);
        assert!(matches!(kept.try_recv(), Ok(Request::Ping(_))), "asked again");
        watch.answered(1, begin + PATIENCE);
        assert!(watch.stalled(begin + 3 * PATIENCE).is_empty());
    }
}
