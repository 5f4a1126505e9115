//! All clients of a run and what they do when something arrives.
//!
//! Links `0..receivers` belong to receivers, the rest to publishers. A publisher's packet ids run round
//! `1..=window`, so that the id of message m is known without a table, and a slot per id holds the intended
//! time until the acknowledgement.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::clock;
use crate::latency::Latency;
use crate::links::{Closed, Handler, Link, LinkId};
use crate::payload::{Arrival, Stamp, Track};
use crate::schedule::Schedule;
use crate::wire::{self, Acknowledge, Connect, Packet, Template, Version};

/// Nanoseconds.
const NANOS_PER_MS: u64 = 1_000_000;

/// What all clients of a run share.
#[derive(Clone, Debug)]
pub struct Common {
    /// Protocol version.
    pub version: Version,
    /// Marks payloads.
    pub run: u32,
    /// Client ids begin so.
    pub prefix: String,
    /// Seconds.
    pub keep_alive: u16,
    /// User name and password.
    pub login: Option<(String, String)>,
}

/// When publishers may send.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// By the timetable.
    Open(Schedule),
    /// While fewer than this are under way.
    Closed(u64),
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Offline,
    Opening,
    Subscribing,
    Up,
}

/// A client that receives (or, without a filter, is only connected).
#[derive(Debug)]
pub struct Receiver {
    /// Its subscription.
    pub filter: Option<String>,
    /// QoS of that.
    pub qos: u8,
    /// Number of the publisher of `tracks[0]`.
    pub first_publisher: u32,
    /// By publisher.
    pub tracks: Vec<Track>,
    /// What comes after a later message is in order: it is retained, under another topic.
    any_order: bool,
    /// It is a member of the fleet's share group: by publisher, one more than the highest sequence that has come here. Its tracks are
    /// the group's.
    newest: Vec<u64>,
    unreleased: HashSet<u16>,
    /// By packet id, when the first copy came that waits for its second.
    first_copies: HashMap<u16, u64>,
}

impl Receiver {
    /// A client subscribed to `filter`, which hears `publishers` of them from number `first_publisher` on.
    pub fn new(filter: Option<String>, qos: u8, first_publisher: u32, publishers: u32) -> Self {
        let tracks = vec![Track::default(); publishers as usize];
        Self {
            filter,
            qos,
            first_publisher,
            tracks,
            any_order: false,
            newest: Vec::new(),
            unreleased: HashSet::new(),
            first_copies: HashMap::new(),
        }
    }

    /// A client that comes for what the only publisher has retained.
    pub fn of_retained(filter: String, qos: u8) -> Self {
        Self { any_order: true, ..Self::new(Some(filter), qos, 0, 1) }
    }

    /// A member of a share group, to which each message of `publishers` goes once.
    pub fn member(filter: String, qos: u8, publishers: u32) -> Self {
        Self { newest: vec![0; publishers as usize], ..Self::new(Some(filter), qos, 0, 0) }
    }
}

/// A client that sends.
#[derive(Debug)]
pub struct Publisher {
    /// Messages go to these in turn. All of one QoS.
    templates: Vec<Template>,
    qos: u8,
    number: u32,
    /// Messages sent.
    pub sent: u64,
    /// Messages that the timetable has released.
    pub due: u64,
    slots: Vec<u64>,
    window: u64,
    in_flight: u64,
    delivered: u64,
    seen: (u64, u64),
}

impl Publisher {
    /// Publisher `number` on the topics of `templates`, of which there is one at least, with at most `window` packet ids in use.
    pub fn new(templates: Vec<Template>, number: u32, window: u16) -> Self {
        let slots = vec![0; usize::from(window)];
        let (window, qos) = (u64::from(window), templates[0].qos());
        Self { templates, qos, number, sent: 0, due: 0, slots, window, in_flight: 0, delivered: 0, seen: (0, 0) }
    }

    /// QoS of its messages.
    pub fn qos(&self) -> u8 {
        self.qos
    }

    /// Begins anew with these, as if it had sent nothing; all that was sent is acknowledged.
    pub fn restart(&mut self, templates: Vec<Template>) {
        *self = Self { window: self.window, ..Self::new(templates, self.number, self.slots.len() as u16) };
    }
}

/// Figures that only grow.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub accepted: u64,
    pub up: u64,
    pub session_present: u64,
    pub refused: BTreeMap<u8, u64>,
    pub tcp_refused: u64,
    pub lost_before: u64,
    pub lost_after: u64,
    pub closed_here: u64,
    pub subscribe_failed: u64,
    pub sent: u64,
    /// Of these, at QoS 1 and 2.
    pub to_complete: u64,
    pub acknowledged: u64,
    pub acknowledged_with_error: u64,
    pub completed: u64,
    pub received: u64,
    pub repeated: u64,
    /// Of these, published and subscribed to at QoS 2.
    pub repeated_exactly_once: u64,
    /// Received at a lower QoS than that of publisher and subscription.
    pub downgraded: u64,
    pub late: u64,
    pub foreign: u64,
    pub written_off: u64,
}

/// The handler of all scenarios.
pub struct Fleet {
    pub common: Common,
    pub receivers: Vec<Receiver>,
    pub publishers: Vec<Publisher>,
    /// The share group's work, by publisher; empty if there is none.
    pub group: Vec<Track>,
    /// Receivers that get each message.
    pub copies: u64,
    stages: Vec<Stage>,
    turn_at: Vec<u64>,
    pub pace: Option<Pace>,
    pub burst: u64,
    /// Most messages of each publisher.
    pub quota: u64,
    /// No sending from this time on.
    pub stop_at: u64,
    /// Latencies of messages intended before are not counted.
    pub warm_at: u64,
    /// Receivers' sessions are to stay.
    pub persistent: bool,
    /// Receivers discard an old session.
    pub clean_start: bool,
    /// Receivers subscribe even though a session was there.
    pub subscribe: bool,
    /// The server is to publish so many nanoseconds after a message is due to be sent; it has arrived in time at that time.
    pub deliver_after: Option<u64>,
    /// Receivers acknowledge only what comes again, and receive only that. It is due so many nanoseconds after the first copy.
    pub second_copies: Option<u64>,
    /// What is timed is from a receiver's turn to connect to an arrival.
    pub from_turn: bool,
    unix_offset: u64,
    /// Closed loop: publishers that may send again.
    pub hungry: Vec<usize>,
    pub counts: Counts,
    pub connack: Latency,
    pub acknowledge: Latency,
    pub end_to_end: Latency,
    pub send_lag: Latency,
    pub last_connack: u64,
    pub last_arrival: u64,
    pub arrival_gap_max: u64,
}

impl Fleet {
    /// All offline.
    pub fn new(common: Common, receivers: Vec<Receiver>, publishers: Vec<Publisher>) -> Self {
        let links = receivers.len() + publishers.len();
        Self {
            common,
            receivers,
            publishers,
            group: Vec::new(),
            copies: 1,
            stages: vec![Stage::Offline; links],
            turn_at: vec![0; links],
            pace: None,
            burst: 1,
            quota: u64::MAX,
            stop_at: u64::MAX,
            warm_at: 0,
            persistent: false,
            clean_start: true,
            subscribe: true,
            deliver_after: None,
            second_copies: None,
            from_turn: false,
            unix_offset: clock::unix_offset(),
            hungry: Vec::new(),
            counts: Counts::default(),
            connack: Latency::new(),
            acknowledge: Latency::new(),
            end_to_end: Latency::new(),
            send_lag: Latency::new(),
            last_connack: 0,
            last_arrival: 0,
            arrival_gap_max: 0,
        }
    }

    /// Link of a publisher.
    pub fn publisher_link(&self, publisher: usize) -> LinkId {
        self.receivers.len() + publisher
    }

    /// Notes that link `id` is about to be opened, and that its turn was at `turn_at`.
    pub fn opening(&mut self, id: LinkId, turn_at: u64) {
        self.stages[id] = Stage::Opening;
        self.turn_at[id] = turn_at;
    }

    /// Whether every publisher has sent its quota.
    pub fn all_sent(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.sent >= self.quota)
    }

    /// QoS 0, closed loop: a publisher that has not moved since the last call forgets what is under way, because
    /// a message lost at QoS 0 would keep its place for ever.
    pub fn write_off_stalled(&mut self) {
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            let seen = (publisher.sent, publisher.delivered);
            if publisher.qos == 0 && publisher.seen == seen && publisher.in_flight > 0 {
                self.counts.written_off += publisher.in_flight;
                publisher.in_flight = 0;
                self.hungry.push(number);
            }
            publisher.seen = seen;
        }
    }

    /// Appends what publisher `number` may send now: what is due, or (closed loop) one burst.
    pub fn pump(&mut self, number: usize, link: &mut Link, now: u64) {
        let stage = self.stages[self.receivers.len() + number];
        let (Some(pace), Stage::Up) = (self.pace, stage) else { return };
        if now >= self.stop_at {
            return;
        }
        let publisher = &mut self.publishers[number];
        let room = publisher.window - publisher.in_flight.min(publisher.window);
        let quota = self.quota.saturating_sub(publisher.sent);
        let mut count = match pace {
            Pace::Open(_) => (publisher.due - publisher.sent).min(quota),
            Pace::Closed(limit) => {
                let burst = self.burst.min(limit);
                let free = limit.saturating_sub(publisher.in_flight);
                // A second burst in one write would make bursts longer just where the broker is slow.
                if free < burst || !link.is_drained() { 0 } else { burst.min(quota) }
            }
        };
        if publisher.qos > 0 {
            count = count.min(room);
        }
        for _ in 0..count {
            if !link.writable() || !self.send_one(number, link, pace, now) {
                return;
            }
        }
        if count > 0 && matches!(pace, Pace::Closed(_)) {
            self.hungry.push(number); // perhaps there is room for another burst
        }
    }

    /// Appends one message; false if its packet id is still taken.
    fn send_one(&mut self, number: usize, link: &mut Link, pace: Pace, now: u64) -> bool {
        let publisher = &mut self.publishers[number];
        let qos = publisher.qos;
        let slot = (publisher.sent % publisher.window) as usize;
        if qos > 0 && publisher.slots[slot] != 0 {
            return false;
        }
        let intended = match pace {
            Pace::Open(schedule) => schedule.intended(number as u64, publisher.sent),
            Pace::Closed(_) => now,
        };
        let deliver_at_unix_ms =
            self.deliver_after.map_or(0, |after| (intended + after + self.unix_offset).div_ceil(NANOS_PER_MS));
        let sent = match self.deliver_after {
            Some(_) => deliver_at_unix_ms * NANOS_PER_MS - self.unix_offset,
            None => intended,
        };
        let (run, sequence) = (self.common.run, publisher.sent);
        let stamp = Stamp { run, publisher: publisher.number, sequence, sent };
        let template = &publisher.templates[(sequence % publisher.templates.len() as u64) as usize];
        template.append(&mut link.out, slot as u16 + 1, deliver_at_unix_ms, |payload| stamp.write(payload));
        if qos > 0 {
            publisher.slots[slot] = intended.max(1);
        }
        if qos > 0 || matches!(pace, Pace::Closed(_)) {
            publisher.in_flight += 1;
        }
        publisher.sent += 1;
        self.counts.sent += 1;
        self.counts.to_complete += u64::from(qos > 0);
        if intended >= self.warm_at {
            self.send_lag.record(now, intended);
        }
        true
    }

    fn connack(&mut self, id: LinkId, link: &mut Link, session_present: bool, code: u8, now: u64) {
        if code != 0 {
            *self.counts.refused.entry(code).or_default() += 1;
            self.stages[id] = Stage::Offline;
            link.close_after_writing();
            return;
        }
        self.counts.accepted += 1;
        self.counts.session_present += u64::from(session_present);
        self.connack.record(now, self.turn_at[id]);
        self.last_connack = now;
        let subscription =
            self.receivers.get(id).and_then(|receiver| Some((receiver.filter.as_deref()?, receiver.qos)));
        match subscription {
            Some((filter, qos)) if self.subscribe => {
                wire::subscribe(&mut link.out, self.common.version, filter, qos);
                self.stages[id] = Stage::Subscribing;
            }
            _ => self.up(id),
        }
    }

    fn up(&mut self, id: LinkId) {
        self.stages[id] = Stage::Up;
        self.counts.up += 1;
    }

    fn arrive(&mut self, id: LinkId, link: &mut Link, publish: (u8, u16, &[u8]), is_copy: bool, now: u64) {
        let (qos, packet, payload) = publish;
        let Some(receiver) = self.receivers.get_mut(id) else { return };
        let mut copy_due = None;
        if let Some(after) = self.second_copies {
            if !is_copy {
                receiver.first_copies.insert(packet, now);
                return;
            }
            copy_due = receiver.first_copies.remove(&packet).map(|first| first + after);
        }
        match qos {
            0 => {}
            1 => wire::acknowledge(&mut link.out, Acknowledge::Puback, packet),
            _ => {
                wire::acknowledge(&mut link.out, Acknowledge::Pubrec, packet);
                if !receiver.unreleased.insert(packet) {
                    return; // the same transfer once more, not a second message
                }
            }
        }
        let stamp = Stamp::read(payload).filter(|stamp| stamp.run == self.common.run);
        let Some(stamp) = stamp else {
            self.counts.foreign += 1;
            return;
        };
        let index = stamp.publisher.wrapping_sub(receiver.first_publisher) as usize;
        let is_member = !receiver.newest.is_empty();
        let track = if is_member { self.group.get_mut(index) } else { receiver.tracks.get_mut(index) };
        let Some(track) = track else {
            self.counts.foreign += 1;
            return;
        };
        let asked = self.publishers.get(stamp.publisher as usize).map_or(0, Publisher::qos).min(receiver.qos);
        self.counts.downgraded += u64::from(qos < asked);
        let arrival = track.arrive(stamp.sequence);
        if arrival == Arrival::Repeated {
            self.counts.repeated += 1;
            self.counts.repeated_exactly_once += u64::from(asked == 2);
            return;
        }
        let is_late = if is_member {
            // What other members have got is no gap.
            let newest = std::mem::replace(&mut receiver.newest[index], stamp.sequence + 1);
            receiver.newest[index] = receiver.newest[index].max(newest);
            newest > stamp.sequence
        } else {
            arrival == Arrival::Late && !receiver.any_order
        };
        self.counts.late += u64::from(is_late);
        self.counts.received += 1;
        if receiver.any_order {
            // Each time is that of a whole set, from the connection's turn on.
            if receiver.tracks[index].received == self.quota {
                self.end_to_end.record(now, self.turn_at[id]);
            }
        } else {
            let due = if self.from_turn { self.turn_at[id] } else { copy_due.unwrap_or(stamp.sent) };
            if due >= self.warm_at {
                self.end_to_end.record(now, due);
            }
        }
        self.arrival_gap_max = self.arrival_gap_max.max(now - self.last_arrival.min(now));
        self.last_arrival = now;
        if qos == 0 && matches!(self.pace, Some(Pace::Closed(_))) {
            self.feed_back(stamp.publisher as usize);
        }
    }

    /// QoS 0, closed loop: a message counts as done when every receiver has it, on average.
    fn feed_back(&mut self, number: usize) {
        let Some(publisher) = self.publishers.get_mut(number) else { return };
        publisher.delivered += 1;
        if publisher.delivered % self.copies == 0 {
            publisher.in_flight = publisher.in_flight.saturating_sub(1);
            if self.hungry.last() != Some(&number) {
                self.hungry.push(number);
            }
        }
    }

    /// PUBACK or PUBREC: the broker has it.
    fn accepted_by_broker(&mut self, id: LinkId, packet: u16, code: u8, now: u64) {
        let Some(publisher) = id.checked_sub(self.receivers.len()).map(|index| &self.publishers[index]) else { return };
        let Some(&intended) = publisher.slots.get(usize::from(packet).wrapping_sub(1)) else { return };
        if intended == 0 {
            return;
        }
        self.counts.acknowledged += 1;
        self.counts.acknowledged_with_error += u64::from(code >= 0x80);
        if intended >= self.warm_at {
            self.acknowledge.record(now, intended);
        }
    }

    /// PUBACK, PUBCOMP or a failed PUBREC: the packet id is free again.
    fn free(&mut self, id: LinkId, packet: u16) {
        let Some(index) = id.checked_sub(self.receivers.len()) else { return };
        let publisher = &mut self.publishers[index];
        let Some(slot) = publisher.slots.get_mut(usize::from(packet).wrapping_sub(1)) else { return };
        if std::mem::take(slot) != 0 {
            publisher.in_flight -= 1;
            self.counts.completed += 1;
        }
    }
}

impl Handler for Fleet {
    fn connected(&mut self, id: LinkId, link: &mut Link) {
        let receiver = id < self.receivers.len();
        let number = if receiver { id } else { id - self.receivers.len() };
        let client = format!("{}-{}{number}", self.common.prefix, if receiver { "r" } else { "p" });
        let connect = Connect {
            version: self.common.version,
            client: &client,
            clean_start: self.clean_start || !receiver,
            persistent: self.persistent && receiver,
            keep_alive: self.common.keep_alive,
            login: self.common.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str())),
        };
        connect.encode(&mut link.out);
    }

    fn packet(&mut self, id: LinkId, link: &mut Link, packet: Packet<'_>, now: u64) {
        match packet {
            Packet::Publish { qos, dup, id: packet, payload } => {
                self.arrive(id, link, (qos, packet, payload), dup, now);
            }
            Packet::Puback { id: packet, code } => {
                self.accepted_by_broker(id, packet, code, now);
                self.free(id, packet);
            }
            Packet::Pubrec { id: packet, code } => {
                self.accepted_by_broker(id, packet, code, now);
                if code >= 0x80 {
                    self.free(id, packet);
                } else {
                    wire::acknowledge(&mut link.out, Acknowledge::Pubrel, packet);
                }
            }
            Packet::Pubrel { id: packet } => {
                if let Some(receiver) = self.receivers.get_mut(id) {
                    receiver.unreleased.remove(&packet);
                }
                wire::acknowledge(&mut link.out, Acknowledge::Pubcomp, packet);
            }
            Packet::Pubcomp { id: packet } => self.free(id, packet),
            Packet::Connack { session_present, code, receive_maximum } => {
                if let Some(index) = id.checked_sub(self.receivers.len()) {
                    let publisher = &mut self.publishers[index];
                    publisher.window = publisher.window.min(u64::from(receive_maximum).max(1));
                }
                self.connack(id, link, session_present, code, now);
            }
            Packet::Suback { code } => {
                self.counts.subscribe_failed += u64::from(code >= 0x80);
                self.up(id);
            }
            Packet::Disconnect { .. } | Packet::Other => {}
        }
    }

    fn turned(&mut self, id: LinkId, link: &mut Link, _now: u64) {
        if let Some(number) = id.checked_sub(self.receivers.len()) {
            self.pump(number, link, clock::now());
        }
    }

    fn closed(&mut self, id: LinkId, why: Closed) {
        let stage = std::mem::replace(&mut self.stages[id], Stage::Offline);
        match (why, stage) {
            (Closed::Local, _) => self.counts.closed_here += 1,
            (_, Stage::Offline) => {} // refused by CONNACK, counted then
            (Closed::Refused, _) => self.counts.tcp_refused += 1,
            (_, Stage::Opening) => self.counts.lost_before += 1,
            (_, Stage::Subscribing | Stage::Up) => self.counts.lost_after += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed_loop(burst: u64, limit: u64, quota: u64) -> Fleet {
        let common = Common { version: Version::V4, run: 1, prefix: "t".to_owned(), keep_alive: 0, login: None };
        let publisher = Publisher::new(vec![Template::new(Version::V4, "t/0", 1, 64)], 0, 100);
        let mut fleet = Fleet::new(common, Vec::new(), vec![publisher]);
        (fleet.burst, fleet.quota, fleet.pace) = (burst, quota, Some(Pace::Closed(limit)));
        fleet.stages[0] = Stage::Up;
        fleet
    }

    /// Sizes of the writes until nothing more may be sent.
    fn writes(fleet: &mut Fleet) -> Vec<u64> {
        let mut sizes = Vec::new();
        fleet.hungry.push(0);
        while let Some(number) = fleet.hungry.pop() {
            let (mut link, before) = (Link::default(), fleet.counts.sent);
            fleet.pump(number, &mut link, 1);
            sizes.push(fleet.counts.sent - before);
        }
        sizes
    }

    /// The closed loop once sent all free places of its window by one write, whatever `--burst` said, so brokers that
    /// answer slowly were spared most of the system calls.
    #[test]
    fn a_write_of_the_closed_loop_is_one_burst() {
        assert_eq!(writes(&mut closed_loop(8, 20, 1_000)), [8, 8, 0]);
        assert_eq!(writes(&mut closed_loop(1, 3, 1_000)), [1, 1, 1, 0]);
        assert_eq!(writes(&mut closed_loop(50, 20, 1_000)), [20, 0], "a window below the burst is the burst");
        assert_eq!(writes(&mut closed_loop(8, 20, 11)), [8, 3, 0], "the rest of the quota");
    }

    fn arrives(fleet: &mut Fleet, member: usize, sequence: u64) {
        let mut payload = vec![0; 64];
        Stamp { run: 1, publisher: 0, sequence, sent: 1 }.write(&mut payload);
        fleet.arrive(member, &mut Link::default(), (1, 1, &payload), false, 2);
    }

    /// A receiver of second copies leaves the first one unanswered, and takes the message, and its time, with the second.
    #[test]
    fn a_second_copy_is_timed_from_when_it_is_due() {
        let mut fleet = closed_loop(1, 1, 1_000);
        fleet.receivers = vec![Receiver::new(Some("t/0".to_owned()), 1, 0, 1)];
        fleet.second_copies = Some(1_000_000);
        let (mut payload, mut link) = ([0; 64], Link::default());
        Stamp { run: 1, publisher: 0, sequence: 0, sent: 1 }.write(&mut payload);
        fleet.arrive(0, &mut link, (1, 5, &payload), false, 3_000_000);
        assert_eq!((fleet.counts.received, link.out.len()), (0, 0));
        fleet.arrive(0, &mut link, (1, 5, &payload), true, 8_000_000);
        assert_eq!((fleet.counts.received, link.out.as_slice()), (1, [0x40, 2, 0, 5].as_slice()));
        let summary = fleet.end_to_end.summary();
        assert!(summary.count == 1 && (summary.max_us - 4_000.0).abs() < 4.0, "{summary:?}");
    }

    /// Two members: what the other one gets is neither missing nor late.
    #[test]
    fn a_share_group_is_verified_as_one() {
        let mut fleet = closed_loop(1, 1, 1_000);
        fleet.receivers = (0..2).map(|_| Receiver::member("$share/g/t/0".to_owned(), 1, 1)).collect();
        fleet.group = vec![Track::default()];
        for (member, sequence) in [(0, 0), (1, 1), (1, 2), (0, 3), (1, 5)] {
            arrives(&mut fleet, member, sequence);
        }
        assert_eq!((fleet.counts.received, fleet.counts.late, fleet.group[0].missing(6)), (5, 0, 1));
        arrives(&mut fleet, 1, 4);
        assert_eq!((fleet.counts.late, fleet.group[0].missing(6)), (1, 0), "4 after 5 at one member");
        arrives(&mut fleet, 0, 5);
        assert_eq!((fleet.counts.repeated, fleet.counts.repeated_exactly_once), (1, 0), "two members got it");
    }

    /// Retained messages come in any order; what is timed is the whole.
    #[test]
    fn a_retained_set_is_whole_or_not() {
        let mut fleet = closed_loop(1, 1, 3);
        fleet.receivers = vec![Receiver::of_retained("t/#".to_owned(), 1)];
        for sequence in [2, 0] {
            arrives(&mut fleet, 0, sequence);
        }
        assert_eq!((fleet.counts.late, fleet.end_to_end.summary().count), (0, 0));
        arrives(&mut fleet, 0, 1);
        assert_eq!((fleet.counts.received, fleet.counts.late, fleet.end_to_end.summary().count), (3, 0, 1));
    }

    #[test]
    fn nothing_is_added_to_an_unsent_burst() {
        let mut fleet = closed_loop(8, 20, 1_000);
        let mut link = Link::default();
        fleet.pump(0, &mut link, 1);
        fleet.pump(0, &mut link, 1);
        assert_eq!(fleet.counts.sent, 8);
    }
}
