//! What may have become of deliveries that somebody has refused, held against what is found, answered and delivered.
//!
//! ```text
//!  queued ──accepted──► settled          of each generation: the message, then what it was requeued as
//!    ▲ └────refused───► letter ──drop──► dropped
//!    └─────requeue────────┘              (one generation more)
//! ```
//!
//! A delivery is in one place. A crash leaves open where it is, if the log had not committed the last move, or the answer to
//! an action had not come: then it is in one of several. What is seen later decides. So neither nowhere nor in two places:
//! whatever is seen has to be among the places, and whatever is not seen in the end is not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Letter, LetterAction, LetterAnswer, LetterId, Message, MessageId, Outcome, ReasonCode, Sequence};
use postroad_base as base;

use crate::oracle::Name;
use crate::world::subscriber_of_client;

/// A delivery of one subscriber through all its requeues: the subscriber, the message that was published.
pub type LifeId = (usize, MessageId);
/// One of its generations: what its client refuses.
pub type Refused = (LifeId, u32);

/// Requeues after which the server parks a letter.
pub const REQUEUES_MAX: u32 = 3;
/// With what subscribers refuse.
pub const REFUSAL: ReasonCode = ReasonCode::ImplementationSpecificError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It waits for its client, or is on its way to it.
    Queued,
    /// The client has it.
    Settled,
    Letter,
    Dropped,
}

/// How many requeues are behind it, and its stage.
type Place = (u32, Stage);

/// A move that a crash may undo.
#[derive(Debug)]
struct Move {
    /// The last record before it, and the last one of it.
    before: Sequence,
    last: Sequence,
    /// Where it may have been before.
    from: BTreeSet<Place>,
}

/// Whether a letter waits for a human.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Parked {
    /// With this note, or not.
    Is(Option<String>),
    Unknown,
}

#[derive(Debug)]
struct Life {
    name: Name,
    shard: usize,
    places: BTreeSet<Place>,
    moves: Vec<Move>,
    /// Asked and not answered, the oldest first.
    asked: VecDeque<(u64, Ask)>,
    /// The message of the newest generation that was seen or told of.
    newest: Option<(u32, MessageId, Vec<u8>)>,
    /// The name of its letter, if it is one and was found.
    letter: Option<LetterId>,
    parked: Parked,
    /// Plugins may requeue it.
    may_be_repaired: bool,
    /// It was a letter before the run. Its client may not have been here yet, or may live on another shard.
    is_brought: bool,
}

/// An action as the oracle sees it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub life: LifeId,
    pub letter: LetterId,
    pub generation: u32,
    pub action: LetterAction,
}

impl Life {
    fn new(name: Name, shard: usize, stage: Stage) -> Self {
        Self {
            name,
            shard,
            places: BTreeSet::from([(0, stage)]),
            moves: Vec::new(),
            asked: VecDeque::new(),
            newest: None,
            letter: None,
            parked: Parked::Unknown,
            may_be_repaired: false,
            is_brought: false,
        }
    }

    fn could_be(&self, generation: u32, stage: Stage) -> bool {
        self.places.contains(&(generation, stage))
    }

    fn is(&mut self, generation: u32, stage: Stage) {
        self.places = BTreeSet::from([(generation, stage)]);
    }

    /// It is a letter, seen as one. Plugins that may requeue it may still do so.
    fn is_letter(&mut self, generation: u32) {
        let requeued = self.places.contains(&(generation + 1, Stage::Queued)) && self.may_be_repaired;
        self.is(generation, Stage::Letter);
        if requeued {
            self.places.insert((generation + 1, Stage::Queued));
        }
    }

    /// At which generation it is a letter for sure, and nobody has asked to change that.
    fn sure_letter(&self) -> Option<u32> {
        let ends = |ask: &Ask| matches!(ask.action, LetterAction::Drop | LetterAction::Requeue(_));
        match *self.places.iter().collect::<Vec<_>>() {
            [&(generation, Stage::Letter)] if !self.asked.iter().any(|(_, ask)| ends(ask)) => Some(generation),
            _ => None,
        }
    }

    /// The process dies; the log holds everything up to `committed`.
    fn crash(&mut self, committed: Sequence) {
        for (_, Ask { generation, action, .. }) in std::mem::take(&mut self.asked) {
            if matches!(action, LetterAction::Park { .. } | LetterAction::Unpark) {
                self.parked = Parked::Unknown;
            }
            if !self.could_be(generation, Stage::Letter) {
                continue;
            }
            match action {
                LetterAction::Drop => drop(self.places.insert((generation, Stage::Dropped))),
                LetterAction::Requeue(_) => drop(self.places.insert((generation + 1, Stage::Queued))),
                _ => {}
            }
        }
        while let Some(Move { before, last, from }) = self.moves.pop() {
            if last <= committed {
                return self.moves.clear(); // the older ones are committed, too
            }
            self.letter = None;
            self.parked = Parked::Unknown;
            if before >= committed {
                self.places = from;
            } else {
                self.places.extend(from);
            }
        }
    }

    /// A message of it was seen: of one generation there is one.
    fn saw(&mut self, message: &Message) -> Result<(), String> {
        let generation = message.requeues();
        match &self.newest {
            Some((known, id, payload)) if *known == generation => {
                if message.id != *id || message.payload != payload[..] {
                    return Err(format!("{:?} was requeued as {id:?}, but {:?} is seen", self.name, message.id));
                }
            }
            Some((known, ..)) if *known > generation => {
                return Err(format!("{:?}: generation {generation} is seen after {known}", self.name));
            }
            _ => self.newest = Some((generation, message.id, message.payload.to_vec())),
        }
        Ok(())
    }
}

/// All that was refused, and all that came to where something may be refused.
#[derive(Debug, Default)]
pub struct Letters {
    /// A requeue may find no room.
    pub queues_are_narrow: bool,
    /// Plugins may requeue what is refused.
    pub plugins_repair: bool,
    lives: BTreeMap<LifeId, Life>,
    /// Who has been sent what.
    names: BTreeSet<(usize, Name)>,
    asked: BTreeMap<u64, Ask>,
    /// Letters that are over, as an answer has told.
    over: BTreeSet<LetterId>,
}

impl Letters {
    /// Whether this has come to the subscriber once: from then on its life is followed here.
    pub fn follows(&self, subscriber: usize, name: Name) -> bool {
        self.names.contains(&(subscriber, name))
    }

    /// It is a letter from the beginning.
    pub fn brought(&mut self, shard: usize, subscriber: usize, name: Name, id: MessageId) {
        let life = Life { is_brought: true, ..Life::new(name, shard, Stage::Letter) };
        self.lives.insert((subscriber, id), life);
    }

    /// It comes to its client, for the first time or again.
    pub fn came(&mut self, shard: usize, subscriber: usize, name: Name, message: &Message) -> Result<LifeId, String> {
        let (id, generation) = ((subscriber, message.original()), message.requeues());
        if generation == 0 {
            self.names.insert((subscriber, name));
            self.lives.entry(id).or_insert_with(|| Life::new(name, shard, Stage::Queued));
        }
        let life = self.lives.get_mut(&id).ok_or(format!("{name:?} was never refused, and comes as requeued"))?;
        if !life.could_be(generation, Stage::Queued) {
            let places = &life.places;
            return Err(format!("{name:?} comes to subscriber {subscriber} at {generation}, but is in {places:?}"));
        }
        life.is(generation, Stage::Queued);
        life.saw(message)?;
        Ok(id)
    }

    /// The client has it. Whether the server hears of it, nobody knows: at QoS 1 it may come again.
    pub fn accepted(&mut self, id: LifeId, generation: u32) {
        if let Some(life) = self.lives.get_mut(&id) {
            life.places.insert((generation, Stage::Settled));
        }
    }

    /// The server has taken a refusal: `records` are the last one before it, and the last one of it.
    pub fn refused(&mut self, (id, generation): Refused, (before, last): (Sequence, Sequence)) -> Result<(), String> {
        let life = self.lives.get_mut(&id).ok_or("a refusal of what never came")?;
        if !life.could_be(generation, Stage::Queued) {
            return Err(format!("{:?} was refused at {generation}, but is in {:?}", life.name, life.places));
        }
        life.moves.push(Move { before, last, from: life.places.clone() });
        life.is(generation, Stage::Letter);
        if self.plugins_repair && generation < REQUEUES_MAX {
            life.places.insert((generation + 1, Stage::Queued));
            life.may_be_repaired = true;
        }
        life.letter = None;
        // After too many requeues the server parks it.
        life.parked = if generation < REQUEUES_MAX { Parked::Is(None) } else { Parked::Unknown };
        Ok(())
    }

    /// The letters of a shard that whoever looks for all of them has to find.
    pub fn sure(&self, shard: usize) -> BTreeSet<Refused> {
        let here = self.lives.iter().filter(|(_, life)| life.shard == shard);
        here.filter_map(|(id, life)| Some((*id, life.sure_letter()?))).collect()
    }

    /// A walk over all letters of a shard is over, which had to find these at its beginning. What was requeued meanwhile and
    /// has died again may stand where the walk had been.
    pub fn walked(&self, sure: &BTreeSet<Refused>, found: &BTreeSet<Refused>) -> Result<(), String> {
        let is_still = |(id, generation): &&Refused| self.lives[id].sure_letter() == Some(*generation);
        match sure.difference(found).find(is_still) {
            Some((id, _)) => Err(format!("subscriber {} has a letter that is not found: {:?}", id.0, self.lives[id])),
            None => Ok(()),
        }
    }

    /// Somebody looks at this letter.
    pub fn found(&mut self, letter: &Letter) -> Result<Refused, String> {
        let death = letter.message.death().ok_or("a letter without a death")?;
        let subscriber = subscriber_of_client(&death.client).ok_or("a letter of nobody")?;
        let (id, generation) = ((subscriber, letter.message.original()), letter.message.requeues());
        let life = self.lives.get_mut(&id).ok_or(format!("a letter of what never came: {letter:?}"))?;
        if self.over.contains(&letter.id) || !life.could_be(generation, Stage::Letter) {
            return Err(format!("{letter:?} is found, but is in {:?}", life.places));
        }
        if life.letter.is_some_and(|known| known != letter.id) {
            return Err(format!("two letters of {:?} for subscriber {subscriber}: {:?}", life.name, life.letter));
        }
        life.is_letter(generation);
        life.letter = Some(letter.id);
        life.saw(&letter.message)?;
        if (death.outcome, death.reason_code) != (Outcome::Refused, REFUSAL as u8) {
            return Err(format!("nobody has refused so: {death:?}"));
        }
        let is_told = |ask: &Ask| !matches!(ask.action, LetterAction::Park { .. } | LetterAction::Unpark);
        if life.asked.iter().all(|(_, ask)| is_told(ask)) {
            let note = Parked::Is(letter.parked.as_ref().map(|parked| parked.note.to_string()));
            if life.parked != Parked::Unknown && life.parked != note {
                return Err(format!("{letter:?} should be {:?}", life.parked));
            }
            life.parked = note;
        }
        Ok((id, generation))
    }

    /// Somebody asks for this to be done with a letter that was found.
    pub fn asked(&mut self, token: u64, ask: Ask) {
        if let Some(life) = self.lives.get_mut(&ask.life) {
            life.asked.push_back((token, ask.clone()));
        }
        self.asked.insert(token, ask);
    }

    /// What became of it. All that was asked of this shard before has been answered.
    pub fn answered(&mut self, token: u64, answer: LetterAnswer) -> Result<(), String> {
        let ask = self.asked.remove(&token).ok_or(format!("an answer that nobody asked for: {answer:?}"))?;
        let life = self.lives.get_mut(&ask.life).expect("whoever asks has found it");
        life.asked.retain(|(other, _)| *other != token);
        let (is_over, generation) = (self.over.contains(&ask.letter), ask.generation);
        match answer {
            LetterAnswer::Gone if is_over => Ok(()),
            LetterAnswer::Gone => {
                life.places.remove(&(generation, Stage::Letter));
                if life.places.is_empty() {
                    Err(format!("a letter that nobody has ended is gone: {ask:?}"))
                } else {
                    Ok(())
                }
            }
            answer if is_over || !life.could_be(generation, Stage::Letter) => {
                Err(format!("{answer:?} to {ask:?}, which is over, and in {:?}", life.places))
            }
            LetterAnswer::Letter(letter) => self.found(&letter).map(drop),
            LetterAnswer::Done(new) => self.done(ask, new),
            LetterAnswer::NoClient if life.is_brought => Ok(()),
            LetterAnswer::QueueFull if self.queues_are_narrow => Ok(()),
            answer @ (LetterAnswer::NoClient | LetterAnswer::QueueFull) => Err(format!("{answer:?} to {ask:?}")),
        }
    }

    fn done(&mut self, ask: Ask, new: Option<MessageId>) -> Result<(), String> {
        let Ask { life, letter, generation, action } = ask;
        let life = self.lives.get_mut(&life).expect("whoever asks has found it");
        match (action, new) {
            (LetterAction::Requeue(requeue), Some(id)) => {
                let before = life.newest.take().map(|(.., payload)| payload);
                let payload = requeue.payload.map(|payload| payload.to_vec()).or(before).unwrap_or_default();
                life.newest = Some((generation + 1, id, payload));
                life.is(generation + 1, Stage::Queued);
                self.over.insert(letter);
            }
            (LetterAction::Drop, None) => {
                life.is(generation, Stage::Dropped);
                self.over.insert(letter);
            }
            (action @ (LetterAction::Park { .. } | LetterAction::Unpark), None) => {
                life.is_letter(generation);
                life.parked = Parked::Is(match action {
                    LetterAction::Park { note } => Some(note.to_string()),
                    _ => None,
                });
            }
            (LetterAction::Release, None) => life.is_letter(generation),
            (action, new) => return Err(format!("{action:?} of {letter:?} is answered with {new:?}")),
        }
        Ok(())
    }

    /// The process dies; the log of each shard holds everything up to these.
    pub fn crash(&mut self, committed: &[Sequence]) {
        self.asked.clear();
        self.lives.values_mut().for_each(|life| life.crash(committed[life.shard]));
    }

    /// All has come to rest, and these are all letters: what is not among them is none. Some need not come, since something newer
    /// has: whose refusal a crash has forgotten was waiting again.
    pub fn settle(
        &mut self,
        found: &BTreeSet<LifeId>,
        is_replaced: impl Fn(&LifeId, Name, bool) -> bool,
    ) -> Result<(), String> {
        if let Some(ask) = self.asked.values().next() {
            return Err(format!("never answered: {ask:?}"));
        }
        let newest: BTreeMap<(usize, Name), MessageId> =
            self.lives.iter().map(|((subscriber, id), life)| ((*subscriber, life.name), *id)).collect();
        for (id, life) in &mut self.lives {
            if !found.contains(id) {
                life.places.retain(|(_, stage)| *stage != Stage::Letter);
            }
            let is_repeated = newest.get(&(id.0, life.name)).is_some_and(|newest| *newest > id.1);
            let is_excused =
                life.places.iter().all(|(generation, _)| *generation == 0) && is_replaced(id, life.name, is_repeated);
            if life.places.iter().all(|(_, stage)| *stage == Stage::Queued) && !is_excused {
                return Err(format!("subscriber {} has neither got it nor is it a letter: {life:?}", id.0));
            }
        }
        Ok(())
    }
}
