//! A consumer group beside the clients: two consumers that take, are slow, die, and say what becomes of what they have.
//!
//! - Acknowledged to its publisher, sent for the first time after the group was set ⇒ some consumer gets it.
//! - Acknowledged by a consumer, and that was answered ⇒ nobody gets it again.
//! - At QoS 2 its publisher's repeats bring it into the group once: it keeps its place there.
//! - Nobody is given a delivery under a name that somebody was given before; who may not be the first is told so.
//! - Who is gone when its answer comes was given nothing.

use std::collections::{BTreeMap, BTreeSet};

use base::{DeliveryId, GroupAnswer, GroupOrder, GroupRefusal, Leased, Sequence, Take, TopicFilter, Verdict};
use postroad_base as base;

use crate::oracle::{Name, Oracle, SHARED_TOPIC};
use crate::random::Random;

/// The group's name.
pub const GROUP: &str = "app";
const CONSUMERS: usize = 2;
/// Longest lease and wait, in milliseconds.
const LEASE_MAX: usize = 500;

/// What a consumer waits for.
#[derive(Clone, Debug)]
enum Asked {
    Set,
    Take {
        consumer: usize,
    },
    /// Its consumer is gone.
    TakeOfNobody,
    Acknowledge {
        deliveries: Vec<DeliveryId>,
    },
    Other,
}

/// What the group's shard is told.
#[derive(Debug)]
pub enum Told {
    Order(u64, GroupOrder),
    /// Who asked under this token is gone.
    Left(u64),
}

/// The group, as its consumers and the oracle know it.
#[derive(Debug, Default)]
pub struct Consumers {
    token_last: u64,
    asked: BTreeMap<u64, Asked>,
    /// Every shard sends what it wants.
    is_set: bool,
    held: [Vec<DeliveryId>; CONSUMERS],
    /// What must be given once its publisher has an answer.
    owed: BTreeSet<Name>,
    given: BTreeSet<Name>,
    /// Acknowledged, and answered.
    over: BTreeSet<Sequence>,
    names: BTreeSet<DeliveryId>,
    /// Leased for who was gone by then.
    untaken: Vec<DeliveryId>,
    had: BTreeSet<Sequence>,
    places: BTreeMap<Name, Sequence>,
    /// The last take of each consumer brought nothing.
    is_empty: [bool; CONSUMERS],
    pub takes: usize,
    pub again: usize,
}

impl Consumers {
    pub fn published(&mut self, name: Name) {
        if self.is_set && name.topic < SHARED_TOPIC {
            self.owed.insert(name);
        }
    }

    fn ask(&mut self, asked: Asked, order: GroupOrder) -> Option<Told> {
        self.token_last += 1;
        self.asked.insert(self.token_last, asked);
        Some(Told::Order(self.token_last, order))
    }

    /// What is wanted next, if anything.
    pub fn act(&mut self, random: &mut Random) -> Option<Told> {
        if !self.is_set {
            let is_asked = self.asked.values().any(|asked| matches!(asked, Asked::Set));
            let filters =
                (0..SHARED_TOPIC).map(|topic| TopicFilter::new(format!("t/{topic}")).expect("a filter")).collect();
            return if is_asked { None } else { self.ask(Asked::Set, GroupOrder::Set { filters }) };
        }
        if !self.untaken.is_empty() {
            return self.give_back_untaken();
        }
        let consumer = random.below(CONSUMERS);
        if random.chance(100)
            && let Some(left) = self.leave(consumer)
        {
            return Some(left);
        }
        let waits =
            self.asked.values().any(|asked| matches!(asked, Asked::Take { consumer: other } if *other == consumer));
        let held = &mut self.held[consumer];
        let some: Vec<DeliveryId> = held.iter().copied().filter(|_| random.chance(600)).collect();
        let answer = |deliveries: Vec<DeliveryId>, verdict| GroupOrder::Answer { deliveries, verdict };
        match random.below(100) {
            0..=44 if !waits => {
                self.take(consumer, random.below(LEASE_MAX), random.below(2) * random.below(LEASE_MAX), random)
            }
            _ if some.is_empty() => None,
            45..=79 => {
                held.retain(|id| !some.contains(id));
                let asked = Asked::Acknowledge { deliveries: some.clone() };
                self.ask(asked, answer(some, Verdict::Acknowledge))
            }
            80..=86 => {
                held.retain(|id| !some.contains(id));
                let after_ms = random.chance(500).then(|| random.below(LEASE_MAX) as u64);
                self.ask(Asked::Other, answer(some, Verdict::Refuse { after_ms, reason: None }))
            }
            87..=91 => {
                held.retain(|id| !some.contains(id));
                self.ask(Asked::Other, answer(some, Verdict::GiveBack))
            }
            92..=95 => {
                self.ask(Asked::Other, answer(some, Verdict::Extend { lease_ms: random.below(LEASE_MAX) as u64 }))
            }
            _ => {
                held.clear(); // it has died
                None
            }
        }
    }

    fn give_back_untaken(&mut self) -> Option<Told> {
        let deliveries = std::mem::take(&mut self.untaken);
        self.ask(Asked::Other, GroupOrder::Answer { deliveries, verdict: Verdict::Untaken })
    }

    /// It waits no more, if it does.
    fn leave(&mut self, consumer: usize) -> Option<Told> {
        let is_its = |asked: &Asked| matches!(asked, Asked::Take { consumer: other } if *other == consumer);
        let (token, asked) = self.asked.iter_mut().find(|(_, asked)| is_its(asked))?;
        *asked = Asked::TakeOfNobody;
        Some(Told::Left(*token))
    }

    fn take(&mut self, consumer: usize, lease: usize, wait: usize, random: &mut Random) -> Option<Told> {
        let (limit, lease_ms, wait_ms) = (1 + random.below(4), 1 + lease as u64, wait as u64);
        self.takes += 1;
        self.ask(Asked::Take { consumer }, GroupOrder::Take(Take { limit, lease_ms, wait_ms }))
    }

    /// What is wanted when all is to come to rest: everything is taken and acknowledged.
    pub fn drain(&mut self, random: &mut Random) -> Option<Told> {
        if !self.untaken.is_empty() {
            return self.give_back_untaken();
        }
        if !self.is_set || !self.asked.is_empty() {
            return if self.is_set { None } else { self.act(random) };
        }
        let consumer = random.below(CONSUMERS);
        let deliveries = std::mem::take(&mut self.held[consumer]);
        if deliveries.is_empty() {
            return self.take(consumer, 10 * LEASE_MAX, 0, random);
        }
        let asked = Asked::Acknowledge { deliveries: deliveries.clone() };
        self.ask(asked, GroupOrder::Answer { deliveries, verdict: Verdict::Acknowledge })
    }

    pub fn answered(&mut self, token: u64, answer: GroupAnswer) -> Result<(), String> {
        let asked = self.asked.remove(&token).ok_or(format!("nobody asked for {answer:?}"))?;
        match (asked, answer) {
            (Asked::Set, GroupAnswer::Set { .. }) => self.is_set = true,
            // A shard is slow: asked again.
            (Asked::Set, GroupAnswer::Refused(GroupRefusal::Unconfirmed)) => {}
            (Asked::Take { consumer }, GroupAnswer::Taken(leased)) => {
                self.is_empty[consumer] = leased.is_empty();
                leased.into_iter().try_for_each(|leased| self.took(consumer, &leased))?;
            }
            (Asked::TakeOfNobody, GroupAnswer::Taken(leased)) => {
                self.untaken.extend(leased.into_iter().map(|leased| leased.id));
            }
            (Asked::Acknowledge { deliveries }, GroupAnswer::Answered(done)) => {
                let done = deliveries.into_iter().zip(done).filter(|(_, done)| *done);
                self.over.extend(done.map(|(id, _)| id.sequence));
            }
            (Asked::Other, GroupAnswer::Answered(_)) => {}
            (asked, answer) => return Err(format!("{answer:?} to {asked:?}")),
        }
        Ok(())
    }

    fn took(&mut self, consumer: usize, Leased { id, message, may_repeat }: &Leased) -> Result<(), String> {
        let name = Name::parse(&message.payload).ok_or("what the group was given is nobody's")?;
        if self.over.contains(&id.sequence) {
            return Err(format!("{name:?} was acknowledged by a consumer, and is given again as {id}"));
        }
        if !self.names.insert(*id) {
            return Err(format!("{id} is given twice"));
        }
        if !self.had.insert(id.sequence) && !may_repeat {
            return Err(format!("{id} is given as if nobody could have had it"));
        }
        let place = *self.places.entry(name).or_insert(id.sequence);
        if name.qos == 2 && place != id.sequence {
            return Err(format!("{name:?} came into the group twice: {} and {}", place.0, id.sequence.0));
        }
        self.again += usize::from(*may_repeat);
        self.given.insert(name);
        self.held[consumer].push(*id);
        Ok(())
    }

    /// The server has gone, and all leases with it: consumers go on with what they have, if it is not known to be nobody's.
    pub fn crash(&mut self) {
        self.asked.clear();
        self.untaken.clear();
    }

    pub fn waits(&self) -> bool {
        !self.asked.is_empty()
    }

    pub fn is_at_rest(&self) -> bool {
        self.is_set
            && self.asked.is_empty()
            && self.held.iter().all(Vec::is_empty)
            && self.is_empty == [true; CONSUMERS]
    }

    /// All has been taken.
    pub fn settle(&self, oracle: &Oracle) -> Result<(), String> {
        match self.owed.iter().find(|name| !self.given.contains(*name) && oracle.is_owed(**name)) {
            Some(name) => Err(format!("{name:?} was acknowledged, and no consumer ever got it")),
            None => Ok(()),
        }
    }
}
