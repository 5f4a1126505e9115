//! Directed pushes: the reserved roots `$client/<id>/…`, `$user/<user>/…`, `$group/<name>/…`, `$all/…`
//! (DESIGN 5). The device sees the rest of the topic.
//!
//! Nobody subscribes to them: a session is found by its client's name, or by who its client proved to be. A
//! client lives on one shard, so `$client/…` goes there only; the others go to every shard. Wildcards of
//! ordinary subscriptions don't match them, for they start with `$`.

use ahash::AHashMap;
use base::{ClientId, Message, Qos, Record, TopicName};
use bytestring::ByteString;
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Principal, StateKey};
use crate::broker::Broker;
use crate::route::{Match, Origin, Scratch};
use crate::session::{Session, SessionIndex};

/// Sessions by who their clients proved to be.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    users: AHashMap<ByteString, Vec<SessionIndex>>,
    groups: AHashMap<ByteString, Vec<SessionIndex>>,
    /// Recovery: of clients whose session may come later in the replay.
    pub replayed: AHashMap<ClientId, Principal>,
}

impl Directory {
    fn enter(&mut self, index: SessionIndex, principal: &Principal) {
        if let Some(user) = &principal.user {
            self.users.entry(user.clone()).or_default().push(index);
        }
        for group in principal.groups.iter() {
            self.groups.entry(group.clone()).or_default().push(index);
        }
    }

    fn leave(&mut self, index: SessionIndex, principal: &Principal) {
        if let Some(user) = &principal.user {
            take_out(&mut self.users, user, index);
        }
        for group in principal.groups.iter() {
            take_out(&mut self.groups, group, index);
        }
    }
}

fn take_out(map: &mut AHashMap<ByteString, Vec<SessionIndex>>, name: &ByteString, index: SessionIndex) {
    let Some(sessions) = map.get_mut(name) else { return };
    sessions.retain(|other| *other != index);
    if sessions.is_empty() {
        map.remove(name);
    }
}

/// To whom a message is directed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root<'a> {
    Client(&'a str),
    User(&'a str),
    Group(&'a str),
    All,
}

impl Broker {
    /// Adds the recipients of a directed push to what `collect` has found.
    pub(crate) fn collect_directed(&mut self, message: &Message, origin: Origin) {
        let Some((root, _)) = split(message.topic.as_str()) else { return };
        let Self { scratch, sessions, clients, directory, mesh, config, .. } = self;
        let mut add = |index: SessionIndex| add_match(scratch, index, &sessions[index as usize], message);
        match root {
            Root::Client(name) => drop(clients.get(name).map(|&index| add(index))),
            Root::User(name) => directory.users.get(name).into_iter().flatten().for_each(|&index| add(index)),
            Root::Group(name) => directory.groups.get(name).into_iter().flatten().for_each(|&index| add(index)),
            Root::All => clients.values().for_each(|&index| add(index)),
        }
        if origin == Origin::Shard {
            return;
        }
        match root {
            Root::Client(name) => scratch.add_shard(config.placement.home(name.as_bytes()), config.shard),
            _ => mesh.others().for_each(|shard| scratch.add_shard(shard, config.shard)),
        }
    }

    /// The session's client has proved to be this one.
    pub(crate) fn set_principal(&mut self, index: SessionIndex, principal: &Principal) {
        let session = &mut self.sessions[index as usize];
        if session.principal == *principal {
            return;
        }
        let old = std::mem::replace(&mut session.principal, principal.clone());
        self.directory.leave(index, &old);
        self.directory.enter(index, principal);
        self.log_principal(index);
    }

    fn log_principal(&mut self, index: SessionIndex) {
        let session = &self.sessions[index as usize];
        if !session.logged {
            return;
        }
        let client = session.client.clone();
        let record = registration(session).unwrap_or_else(|| Record::Unregister { client: client.clone() });
        self.append(record);
        self.retiring.dirty.insert(StateKey::Registration(client));
    }

    /// The session is about to end.
    pub(crate) fn leave_directory(&mut self, index: SessionIndex) {
        self.set_principal(index, &Principal::default());
    }

    /// Recovery: all sessions are there.
    pub(crate) fn apply_principals(&mut self) {
        for (client, principal) in std::mem::take(&mut self.directory.replayed) {
            if let Some(&index) = self.clients.get(&client) {
                self.directory.enter(index, &principal);
                self.sessions[index as usize].principal = principal;
            }
        }
    }

    pub(crate) fn registration_of(&self, client: &ClientId) -> Option<Record> {
        let index = *self.clients.get(client)?;
        registration(&self.sessions[index as usize])
    }
}

fn registration(session: &Session) -> Option<Record> {
    let Principal { user, groups } = &session.principal;
    let known = user.is_some() || !groups.is_empty();
    let (client, user, groups) = (session.client.clone(), user.clone(), groups.to_vec());
    known.then_some(Record::Register { client, user, groups })
}

/// At the publisher's level: the recipient has not chosen one.
fn add_match(scratch: &mut Scratch, index: SessionIndex, session: &Session, message: &Message) {
    if session.mark_walk == scratch.walk() {
        return; // subscribed to it as well
    }
    let qos: Qos = message.qos;
    let identifiers = SmallVec::new();
    scratch.matches.push(Match { session: index, qos, retain: false, identifiers, full: false, shared: false });
}

/// The topic as the device sees it, if the message was directed.
pub(crate) fn topic_of_device(topic: &TopicName) -> Option<TopicName> {
    let text = topic.as_byte_string();
    if !text.starts_with('$') {
        return None;
    }
    let (_, rest) = split(text)?;
    TopicName::new(text.slice_ref(rest)).ok()
}

/// The root and the rest of a directed topic.
fn split(topic: &str) -> Option<(Root<'_>, &str)> {
    if let Some(rest) = topic.strip_prefix("$all/") {
        return Some((Root::All, rest));
    }
    let named = |root| topic.strip_prefix(root).and_then(|rest: &str| rest.split_once('/'));
    let client = named("$client/").map(|(name, rest)| (Root::Client(name), rest));
    let user = || named("$user/").map(|(name, rest)| (Root::User(name), rest));
    let group = || named("$group/").map(|(name, rest)| (Root::Group(name), rest));
    client.or_else(user).or_else(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_sees_the_rest() {
        let check = |topic: &str| topic_of_device(&TopicName::new(topic).unwrap()).map(|t| t.as_str().to_owned());
        assert_eq!(check("$client/car-7/cmd/lock").as_deref(), Some("cmd/lock"));
        assert_eq!(check("$all/news").as_deref(), Some("news"));
        assert_eq!(check("$user/anna/"), None);
        assert_eq!(check("$client/car-7"), None);
        assert_eq!(check("$SYS/x"), None);
        assert_eq!(check("a/b"), None);
    }
}
