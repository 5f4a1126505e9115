//! An operator who looks for dead letters, page by page, and acts on what was found, now and then on what is over.
//!
//! It outlives crashes of the server, and so do the names that it was told. What it asked for and got no answer to, it forgets.

use std::collections::{BTreeMap, BTreeSet};

use base::{Letter, LetterAction, LetterFilter, LetterId, LetterQuery, Requeue};
use postroad_base as base;

use crate::letters::{Ask, Letters, LifeId, Refused};
use crate::oracle::Name;
use crate::random::Random;

/// A look at all letters of a shard, or at all that nobody has leased.
#[derive(Debug)]
struct Walk {
    /// The page that is asked for; it is answered if there is none.
    token: Option<u64>,
    query: LetterQuery,
    /// What it has to find.
    sure: BTreeSet<Refused>,
    /// What it has found. What is requeued meanwhile may die again, and be found as that.
    found: BTreeSet<Refused>,
    /// When the page was asked for.
    at: u64,
}

/// A letter that was found.
#[derive(Clone, Copy, Debug)]
struct Known {
    shard: usize,
    letter: LetterId,
    life: LifeId,
    generation: u32,
    name: Name,
}

/// Somebody has a letter for himself.
#[derive(Debug)]
struct Lease {
    token: u64,
    until: u64,
}

/// See the module head.
#[derive(Debug, Default)]
pub struct Operator {
    token_last: u64,
    walks: BTreeMap<usize, Walk>,
    known: Vec<Known>,
    leases: BTreeMap<LetterId, Lease>,
    /// Given back, by the last of these.
    released: BTreeMap<LetterId, u64>,
}

/// The answer to a look.
#[derive(Debug)]
pub struct Page {
    pub letters: Vec<Letter>,
    /// Behind which one to go on; `None`: those were all.
    pub next: Option<LetterId>,
}

/// What it asks for: of which shard, by which token.
#[derive(Debug)]
pub enum Question {
    Find { shard: usize, token: u64, query: LetterQuery },
    Act { shard: usize, token: u64, ask: Ask },
}

/// How far back it remembers.
const KNOWN_MAX: usize = 40;

impl Operator {
    fn token(&mut self) -> u64 {
        self.token_last += 1;
        self.token_last
    }

    /// Looks at the next page of a shard, if it has got the last one.
    pub fn look(&mut self, shard: usize, clock: u64, letters: &Letters, random: &mut Random) -> Option<Question> {
        let token = self.token();
        let walk = self.walks.entry(shard).or_insert_with(|| {
            let is_free = random.chance(400);
            let sure = if is_free { BTreeSet::new() } else { letters.sure(shard) };
            let filter = LetterFilter { is_leased: is_free.then_some(false), ..LetterFilter::default() };
            let lease_ms = is_free.then(|| 1 + random.below(4_000) as u64);
            let query = LetterQuery { filter, lease_ms, ..LetterQuery::default() };
            Walk { token: None, query, sure, found: BTreeSet::new(), at: 0 }
        });
        if walk.token.is_some() {
            return None;
        }
        (walk.token, walk.at, walk.query.limit) = (Some(token), clock, 1 + random.below(4));
        Some(Question::Find { shard, token, query: walk.query.clone() })
    }

    /// A page has come.
    pub fn found(
        &mut self,
        shard: usize,
        token: u64,
        page: Page,
        clock: u64,
        letters: &mut Letters,
    ) -> Result<(), String> {
        let Page { letters: found, next } = page;
        let mut walk = self.walks.remove(&shard).filter(|walk| walk.token == Some(token)).ok_or("a page of nothing")?;
        if found.len() > walk.query.limit {
            return Err(format!("{} letters instead of {}", found.len(), walk.query.limit));
        }
        for letter in &found {
            if walk.query.after.is_some_and(|after| letter.id <= after) {
                return Err(format!("{letter:?} is found behind {:?}", walk.query.after));
            }
            walk.query.after = Some(letter.id);
            let (life, generation) = letters.found(letter)?;
            if !walk.found.insert((life, generation)) {
                return Err(format!("{letter:?} is found twice"));
            }
            self.leased(&walk, token, letter.id, clock)?;
            let name = Name::parse(&letter.message.payload).ok_or("strange payload")?;
            self.known.push(Known { shard, letter: letter.id, life, generation, name });
        }
        self.known.drain(..self.known.len().saturating_sub(KNOWN_MAX));
        match next {
            Some(next) if walk.query.after.is_some_and(|after| next < after) => {
                return Err(format!("the next page is behind {next:?}, which was on an older one"));
            }
            Some(_) => {
                (walk.query.after, walk.token) = (next, None);
                self.walks.insert(shard, walk);
            }
            None => letters.walked(&walk.sure, &walk.found)?,
        }
        Ok(())
    }

    /// A page that asks for what nobody has leased leases it.
    fn leased(&mut self, walk: &Walk, token: u64, letter: LetterId, clock: u64) -> Result<(), String> {
        let Some(lease_ms) = walk.query.lease_ms else { return Ok(()) };
        if let Some(lease) = self.leases.get(&letter).filter(|lease| lease.until > clock && lease.token < token) {
            return Err(format!("{letter:?} is free, but leased until {}", lease.until));
        }
        if self.released.get(&letter).is_none_or(|released| *released < token) {
            self.leases.insert(letter, Lease { token, until: walk.at + lease_ms });
        }
        Ok(())
    }

    /// Does something with a letter that was found; it may be over.
    pub fn act(&mut self, random: &mut Random) -> Option<Question> {
        let token = self.token();
        let place = random.below(self.known.len());
        let &Known { shard, letter, life, generation, name } = self.known.get(place)?;
        let action = match random.below(100) {
            0..=24 => LetterAction::Drop,
            25..=44 => LetterAction::Requeue(Requeue::default()),
            45..=64 => {
                let payload = Some(format!("{}#{token}", name.text()).into());
                LetterAction::Requeue(Requeue { payload, ttl_seconds: None })
            }
            65..=76 => LetterAction::Park { note: format!("note {token}").into() },
            77..=86 => LetterAction::Unpark,
            87..=94 => LetterAction::Show,
            _ => {
                self.leases.remove(&letter);
                self.released.insert(letter, token);
                LetterAction::Release
            }
        };
        Some(Question::Act { shard, token, ask: Ask { life, letter, generation, action } })
    }

    /// The server has died. Nothing is leased any more.
    pub fn crash(&mut self) {
        self.walks.clear();
        self.leases.clear();
    }

    /// Whether it waits for a page.
    pub fn waits(&self) -> bool {
        self.walks.values().any(|walk| walk.token.is_some())
    }
}
