//! Devices: sessions that outlive their connections, each with habits of its own.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use postroad_base::{Qos, ReasonCode, Tag};
use postroad_protocol::mqtt::{Ack, Disconnect, Packet, Version};

use super::ledger::Target;
use super::{Doer, Shared, chance, device_name, unix_ms};
use crate::mqtt::{Client, Incoming, Message, Options};
use crate::random::Random;

/// A silence after which a device looks whether the test is over.
const SILENCE: Duration = Duration::from_millis(50);

/// What a device can have asked for at most.
const PULLED_MAX: u32 = 65_535;

/// What a device does. Of a thousand messages, or visits.
#[derive(Clone, Copy, Debug, Default)]
struct Habits {
    /// MQTT 3.1.1: then it can't refuse, and what it holds for long is sent again on its connection.
    is_old: bool,
    /// It refuses.
    refuses: u64,
    /// It takes no notice.
    ignores: u64,
    /// Messages of one visit, at most; `None`: it stays.
    visit: Option<u64>,
    /// It asks for so many at once.
    pulls: Option<u32>,
}

/// Of the devices that come, by number.
const HABITS: [Habits; super::AWAY] = [
    Habits { is_old: false, refuses: 0, ignores: 0, visit: None, pulls: None },
    Habits { is_old: true, refuses: 0, ignores: 250, visit: Some(12), pulls: None },
    Habits { is_old: false, refuses: 350, ignores: 20, visit: Some(40), pulls: None },
    Habits { is_old: false, refuses: 50, ignores: 50, visit: Some(25), pulls: Some(7) },
];

fn options(device: usize) -> Options {
    let is_old = HABITS.get(device).is_some_and(|habits| habits.is_old);
    let version = if is_old { Version::V3_1_1 } else { Version::V5 };
    Options { version, ..Options::persistent(&device_name(device)) }
}

/// Makes its session.
pub(super) fn subscribe(shared: &Shared, device: usize) {
    let subscribed = Client::connect(shared.mqtt.address(), &options(device)).and_then(|mut client| {
        client.subscribe(&format!("dev/{device}"), Qos::ExactlyOnce)?;
        client.disconnect()
    });
    subscribed.expect("nothing was killed yet");
}

/// One device with its session.
struct Device<'a> {
    shared: &'a Shared,
    number: usize,
    habits: Habits,
    random: Random,
    /// QoS 2 transfers that were taken and not released.
    unreleased: HashSet<u16>,
    /// Whose they are.
    transfers: Vec<(u16, String)>,
    /// Acknowledged at QoS 1 on this connection.
    acknowledged: Vec<String>,
    /// Deliveries that it has asked for and not got, on this connection. What is sent again need not be asked for, but may take of it.
    allowance: u32,
    /// Nothing has come for a while.
    is_silent: bool,
}

/// Comes and goes until the test is over.
pub(super) fn live(shared: &Shared, number: usize, random: Random) {
    let (unreleased, transfers) = Default::default();
    let habits = HABITS[number];
    let mut device = Device {
        shared,
        number,
        habits,
        random,
        unreleased,
        transfers,
        acknowledged: Vec::new(),
        allowance: 0,
        is_silent: false,
    };
    // Acknowledgements that the server has read, in this life: the next session's CONNACK says that they are stored.
    let mut read: Option<(u64, Vec<String>)> = None;
    while !shared.is_over() {
        let before = shared.living();
        let Ok(mut client) = Client::connect(shared.mqtt.address(), &options(number)) else { continue };
        assert!(client.session_present, "{}: its session is gone", device_name(number));
        if let Some((life, names)) = read.take().filter(|(life, _)| *life == before && shared.living() == before) {
            let mut ledger = shared.ledger();
            names.iter().for_each(|name| ledger.stored(name));
            assert_eq!(life, before);
        }
        (device.acknowledged, device.allowance) = (Vec::new(), 0);
        let has_left = device.visit(&mut client).and_then(|()| device.leave(client)).unwrap_or(false);
        if has_left && shared.living() == before {
            read = Some((before, std::mem::take(&mut device.acknowledged)));
        }
    }
}

impl Device<'_> {
    /// Takes, refuses and ignores what comes, until it has had enough.
    fn visit(&mut self, client: &mut Client) -> io::Result<()> {
        client.stream().set_read_timeout(Some(SILENCE))?;
        let most = self.habits.visit.map(|most| 1 + self.random.below(most));
        let mut messages = 0;
        while !self.shared.is_over() && (self.shared.is_settling() || most.is_none_or(|most| messages < most)) {
            self.pull(client)?;
            match client.receive() {
                Ok(Incoming::Publish(message)) => {
                    messages += 1;
                    self.shared.about_to(Doer::Device);
                    self.came(client, &message)?;
                }
                Ok(Incoming::PubRel(id)) => self.released(client, id)?,
                Ok(Incoming::Disconnect(reason)) => return Err(io::Error::other(reason.name())),
                Ok(Incoming::PubAck(..)) => {}
                Ok(other) => panic!("a device got {other:?}"),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.is_silent = true;
                    // What is held is never acknowledged on this connection: somebody has to end it.
                    if most.is_some() && !self.shared.is_settling() && chance(&mut self.random, 300) {
                        return Ok(());
                    }
                    if self.shared.is_settling() && self.habits.ignores > 0 && messages > 0 {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks for more once all that was asked for has come, or nothing comes.
    fn pull(&mut self, client: &mut Client) -> io::Result<()> {
        let has_enough = self.allowance > 0 && !self.is_silent;
        let Some(count) = self.habits.pulls.filter(|_| !has_enough) else { return Ok(()) };
        self.is_silent = false;
        self.allowance = (self.allowance + count).min(PULLED_MAX);
        let topic = format!("$pull/{count}");
        client.send_publish(&Message {
            topic,
            payload: Vec::new(),
            qos: Qos::AtMostOnce,
            dup: false,
            retain: false,
            id: 0,
        })
    }

    fn came(&mut self, client: &mut Client, message: &Message) -> io::Result<()> {
        let name = std::str::from_utf8(&message.payload).expect("names are text");
        let is_repeat = message.qos == Qos::ExactlyOnce && self.unreleased.contains(&message.id);
        if is_repeat {
            assert!(message.dup, "{name} has the packet identifier of what is not over");
            let transfer = self.transfers.iter().find(|(id, _)| *id == message.id);
            assert_eq!(transfer.map(|(_, name)| &**name), Some(name), "two transfers have one packet identifier");
            return client.acknowledge(Packet::PubRec, message.id);
        }
        if self.habits.pulls.is_some() && !message.dup {
            assert!(self.allowance > 0, "{name} was not asked for");
        }
        if self.habits.pulls.is_some() {
            self.allowance = self.allowance.saturating_sub(1);
        }
        let place = format!("packet {} at QoS {} in life {}", message.id, message.qos.number(), self.shared.life());
        self.shared.ledger().note(name, place);
        self.shared.ledger().came(name, Target::Device(self.number), message.dup, unix_ms());
        let is_settling = self.shared.is_settling();
        if !is_settling && chance(&mut self.random, self.habits.ignores) {
            self.shared.ledger().note(name, "is ignored");
            return Ok(());
        }
        let is_refused = !is_settling && chance(&mut self.random, self.habits.refuses);
        self.answer(client, message, name, is_refused)
    }

    fn answer(&mut self, client: &mut Client, message: &Message, name: &str, is_refused: bool) -> io::Result<()> {
        let tag = Tag::new(message.id).expect("it has a packet identifier");
        let reason = if is_refused { ReasonCode::ImplementationSpecificError } else { ReasonCode::Success };
        let answer = Ack::new(tag, reason);
        if is_refused {
            self.shared.ledger().note(name, "is refused");
        } else {
            self.shared.ledger().taken(name);
        }
        match message.qos {
            Qos::AtMostOnce => panic!("{name} came at QoS 0"),
            Qos::AtLeastOnce => {
                client.send(&Packet::PubAck(answer))?;
                self.acknowledged.extend((!is_refused).then(|| name.to_owned()));
                Ok(())
            }
            Qos::ExactlyOnce => {
                if !is_refused {
                    self.unreleased.insert(message.id);
                    self.transfers.push((message.id, name.to_owned()));
                }
                client.send(&Packet::PubRec(answer))
            }
        }
    }

    /// It does not come again.
    fn released(&mut self, client: &mut Client, id: u16) -> io::Result<()> {
        if self.unreleased.remove(&id) {
            let place = self.transfers.iter().position(|(other, _)| *other == id).expect("they go together");
            let (_, name) = self.transfers.swap_remove(place);
            self.shared.ledger().released(&name);
        }
        client.acknowledge(Packet::PubComp, id)
    }

    /// Ends its connection: properly, and then `true` once the server has read all and closed it; or by vanishing.
    fn leave(&mut self, mut client: Client) -> io::Result<bool> {
        if chance(&mut self.random, 500) {
            return Ok(false);
        }
        let life = self.shared.living();
        client.stream().set_read_timeout(Some(crate::PATIENCE))?;
        client.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)))?;
        // What was under way to it is not seen any more.
        while client.receive().is_ok() {}
        Ok(self.shared.living() == life)
    }
}
