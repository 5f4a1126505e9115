//! Registrations: clients that can be addressed while they are away, and what waits for them (DESIGN 5).
//!
//! A client is registered by `auth.file`, by a caller of the API, by its first authenticated connection, or by a push to it where
//! unknown clients are allowed. Directed pushes belong to the registration, not to the MQTT session: a clean start discards none of them.
//!
//! The queue of a registration begins with its first push, since most clients never get one. It is a [`Session`] of
//! [`Role::Registration`]: stored, drained, retired and recovered as any other; an empty one ends at the next recovery.
//!
//! Invariants
//! - A registration belongs to its user: no other may connect as its client. `auth.file` has the last word on whose it is, and
//!   then the API; where they name another user, the old one's connection, session and pushes end.
//! - A session whose client proved to be a user has a registration: after a restart that says whose the session is.
//! - A queue ends only while no connection drains it: its packet identifiers may still be answered.
//!
//! One that a connection or a push made ends when its client has not been here for `registrations_idle_max`; else names that
//! are used once would fill the table for ever.

use std::collections::BTreeSet;

use ahash::{AHashMap, AHashSet};
use base::{Addressee, ClientId, Ended, QueueOwner, ReasonCode, Record, RegisteredBy, WallMillis};
use bytestring::ByteString;
use postroad_base as base;
use slab::Slab;

use crate::api::{ClientAnswer, ClientName, Counted, Effect, Principal, StateKey};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::places::{By, Places};
use crate::session::{ConnectionIndex, Role, Session, SessionIndex};
use crate::timers::{Timer, TimerKey};

/// Place of a registration in the slab.
pub(crate) type RegistrationIndex = u32;

/// A client that is known, whether it is here or not.
#[derive(Debug)]
pub(crate) struct Registration {
    pub client: ClientId,
    /// Who it is: from `auth.file`, or who it proved to be last.
    pub principal: Principal,
    by: RegisteredBy,
    /// When the client was here last, to a day: each change is a record.
    seen: WallMillis,
    /// Its queue, once there was a push.
    pub queue: Option<SessionIndex>,
}

impl Registration {
    pub fn by(&self) -> RegisteredBy {
        self.by
    }

    fn record(&self) -> Record {
        let Principal { user, groups } = &self.principal;
        let (client, user, groups) = (self.client.clone(), user.clone(), groups.to_vec());
        Record::Register { client, by: self.by, seen: self.seen, user, groups }
    }
}

/// The registration of a client, every one.
#[derive(Debug)]
struct ByRegistered;

impl By for ByRegistered {
    type Entry = Registration;
    type Key = str;

    fn key(known: &Registration) -> &str {
        known.client.as_str()
    }
}

/// All registrations of this shard, by client, user and group.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    entries: Slab<Registration>,
    clients: Places<ByRegistered>,
    users: AHashMap<ByteString, BTreeSet<RegistrationIndex>>,
    groups: AHashMap<ByteString, BTreeSet<RegistrationIndex>>,
    /// A look for idle ones is due.
    sweep: Option<TimerKey>,
}

/// How exactly it is known when a client was here last.
const SEEN_STEP_MILLIS: u64 = 24 * 3_600_000;
/// Time between two looks for idle registrations.
const SWEEP_MILLIS: u64 = 3_600_000;

impl Registrations {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn find(&self, client: &str) -> Option<RegistrationIndex> {
        self.clients.find(&self.entries, client)
    }

    pub fn get(&self, client: &str) -> Option<&Registration> {
        self.find(client).map(|index| &self.entries[index as usize])
    }

    pub fn of_user(&self, user: &str) -> Vec<RegistrationIndex> {
        self.users.get(user).into_iter().flatten().copied().collect()
    }

    pub fn of_group(&self, group: &str) -> Vec<RegistrationIndex> {
        self.groups.get(group).into_iter().flatten().copied().collect()
    }

    pub fn all(&self) -> Vec<RegistrationIndex> {
        self.entries.iter().map(|(index, _)| index as RegistrationIndex).collect()
    }

    pub fn entry(&self, index: RegistrationIndex) -> &Registration {
        &self.entries[index as usize]
    }

    /// The one at this place, if there is one; all are below `places`.
    pub fn at(&self, index: RegistrationIndex) -> Option<&Registration> {
        self.entries.get(index as usize)
    }

    pub fn places(&self) -> usize {
        self.entries.capacity()
    }

    fn entry_mut(&mut self, index: RegistrationIndex) -> &mut Registration {
        &mut self.entries[index as usize]
    }

    /// Enters or changes one; whether something is different now.
    fn set(&mut self, client: &ClientId, principal: &Principal, by: RegisteredBy, seen: WallMillis) -> bool {
        let Some(index) = self.find(client.as_str()) else {
            let (client, principal) = (client.clone(), principal.clone());
            let entry = Registration { client, principal: Principal::default(), by, seen, queue: None };
            let index = u32::try_from(self.entries.insert(entry)).expect("fewer registrations than 2^32");
            self.clients.insert(&self.entries, index);
            self.enter(index, principal);
            return true;
        };
        let known = self.entry_mut(index);
        if known.principal == *principal && known.by == by && seen.since(known.seen) < SEEN_STEP_MILLIS {
            return false;
        }
        (known.by, known.seen) = (by, seen.max(known.seen));
        self.leave(index);
        self.enter(index, principal.clone());
        true
    }

    fn remove(&mut self, client: &ClientId) -> Option<Registration> {
        let index = self.find(client.as_str())?;
        self.clients.remove(&self.entries, index);
        self.leave(index);
        Some(self.entries.remove(index as usize))
    }

    fn enter(&mut self, index: RegistrationIndex, principal: Principal) {
        if let Some(user) = &principal.user {
            self.users.entry(user.clone()).or_default().insert(index);
        }
        for group in principal.groups.iter() {
            self.groups.entry(group.clone()).or_default().insert(index);
        }
        self.entry_mut(index).principal = principal;
    }

    fn leave(&mut self, index: RegistrationIndex) {
        let principal = std::mem::take(&mut self.entry_mut(index).principal);
        if let Some(user) = &principal.user {
            take_out(&mut self.users, user, index);
        }
        for group in principal.groups.iter() {
            take_out(&mut self.groups, group, index);
        }
    }
}

fn take_out(map: &mut AHashMap<ByteString, BTreeSet<RegistrationIndex>>, name: &ByteString, index: RegistrationIndex) {
    let Some(entries) = map.get_mut(name) else { return };
    entries.remove(&index);
    if entries.is_empty() {
        map.remove(name);
    }
}

impl Broker {
    /// The client has connected and proved to be this one: its first authenticated connection registers it.
    pub(crate) fn register_connected(&mut self, client: &ClientId, name: ClientName, principal: &Principal) {
        if name == ClientName::Caller {
            return;
        }
        let known = self.registrations.get(client.as_str()).map(|known| (known.by, known.principal.clone()));
        let proved = principal.user.is_some() || !principal.groups.is_empty();
        let (by, principal) = match (known, name) {
            (Some((RegisteredBy::File, _)), _) => (RegisteredBy::File, principal.clone()),
            // Whom it named stays in the groups that it named, whichever its connection proves.
            (Some((RegisteredBy::Api, known)), _) => (RegisteredBy::Api, known.or_user_of(principal)),
            (None, ClientName::Assigned) => (RegisteredBy::Assigned, principal.clone()),
            _ => (RegisteredBy::Connection, principal.clone()),
        };
        if proved {
            self.register(client, &principal, by);
        }
    }

    /// A caller of the API names this client, and whose it is. If it names no user, it stays that of the one it has.
    pub(crate) fn register_by_api(&mut self, token: u64, client: &ClientId, named: Principal) {
        let answer = self.register_named_by_api(client, named);
        self.after_commit(Waiter::Emit(Box::new(Effect::ClientDone { token, answer })));
    }

    fn register_named_by_api(&mut self, client: &ClientId, named: Principal) -> ClientAnswer {
        let known = self.registrations.get(client.as_str()).map(|known| (known.by, known.principal.clone()));
        if self.disk_full {
            return ClientAnswer::DiskFull;
        }
        let principal = match known {
            Some((RegisteredBy::File, _)) => return ClientAnswer::OfFile,
            None if !self.may_register() => {
                self.count(Counted::RegistrationLimit);
                return ClientAnswer::Full;
            }
            Some((_, known)) if known.is_another_than(&named) && named.user.is_some() => {
                self.take_from_user(client, ReasonCode::NotAuthorized);
                named
            }
            Some((_, known)) => named.or_user_of(&known),
            None => named,
        };
        self.register(client, &principal, RegisteredBy::Api);
        ClientAnswer::Done
    }

    /// A caller of the API wants nothing to be known of this client any more: connection, session and registration end. Its next
    /// connection may begin anew.
    pub(crate) fn unregister_by_api(&mut self, token: u64, client: &ClientId) {
        let answer = match self.registrations.get(client.as_str()).map(|known| known.by) {
            Some(RegisteredBy::File) => ClientAnswer::OfFile,
            None if self.session_of_client(client.as_str()).is_none() => ClientAnswer::Unknown,
            _ => {
                self.take_from_user(client, ReasonCode::AdministrativeAction);
                ClientAnswer::Done
            }
        };
        self.after_commit(Waiter::Emit(Box::new(Effect::ClientDone { token, answer })));
    }

    pub(crate) fn register(&mut self, client: &ClientId, principal: &Principal, by: RegisteredBy) {
        if self.registrations.set(client, principal, by, self.now.wall) {
            self.log_registration(client);
            self.schedule_sweep();
        }
    }

    fn schedule_sweep(&mut self) {
        if self.registrations.sweep.is_none() {
            let at = self.now.mono.after(SWEEP_MILLIS);
            self.registrations.sweep = Some(self.timers.set(at, Timer::IdleRegistrations));
        }
    }

    /// Ends those whose clients have not been here for long.
    pub(crate) fn end_idle_registrations(&mut self) {
        self.registrations.sweep = None;
        let idle_max = self.config.limits.registrations_idle_max_ms;
        let is_idle = |known: &&Registration| {
            !matches!(known.by, RegisteredBy::File | RegisteredBy::Api)
                && idle_max > 0
                && self.now.wall.since(known.seen) >= idle_max
                && self.session_of_client(known.client.as_str()).is_none()
        };
        let known = self.registrations.entries.iter().map(|(_, known)| known);
        let idle: Vec<_> = known.filter(is_idle).map(|known| known.client.clone()).collect();
        for client in idle {
            self.unregister(&client);
        }
        if self.registrations.len() > 0 {
            self.schedule_sweep();
        }
    }

    /// The client's session has ended: that was when it was here last.
    pub(crate) fn registration_left(&mut self, client: &ClientId) {
        let Some(known) = self.registrations.get(client.as_str()) else { return };
        match known.by {
            RegisteredBy::Assigned => self.unregister(client),
            by => {
                let principal = known.principal.clone();
                self.register(client, &principal, by);
            }
        }
    }

    fn log_registration(&mut self, client: &ClientId) {
        if !self.config.durable {
            return;
        }
        let record = self.registration_record(client);
        self.append(record.unwrap_or_else(|| Record::Unregister { client: client.clone() }));
        self.retiring.dirty.insert(StateKey::Registration(client.clone()));
    }

    /// The registration as the log and the old generation hold it.
    pub(crate) fn registration_record(&self, client: &ClientId) -> Option<Record> {
        self.registrations.get(client.as_str()).map(Registration::record)
    }

    /// Whether another client may be registered.
    pub(crate) fn may_register(&self) -> bool {
        self.registrations.len() < self.config.limits.registrations_max
    }

    /// These are the clients of this shard that `auth.file` names now. One that it names no longer is unregistered, unless
    /// it is connected or has a session of a user: then its connection has registered it.
    pub(crate) fn registrations_of_file(&mut self, clients: Vec<(ClientId, Principal)>) {
        let named: AHashSet<ClientId> = clients.iter().map(|(client, _)| client.clone()).collect();
        for (client, principal) in clients {
            self.register_named(&client, principal);
        }
        let gone =
            |(_, known): &(usize, &Registration)| known.by == RegisteredBy::File && !named.contains(&known.client);
        let gone: Vec<_> = self.registrations.entries.iter().filter(gone).map(|(_, k)| k.client.clone()).collect();
        for client in gone {
            match self.session_of_client(client.as_str()).map(|index| &self.sessions[index as usize]) {
                Some(session) if session.connection.is_some() || session.principal.user.is_some() => {
                    let principal = session.principal.clone();
                    self.register(&client, &principal, RegisteredBy::Connection);
                }
                _ => self.unregister(&client),
            }
        }
    }

    fn register_named(&mut self, client: &ClientId, named: Principal) {
        let known = self.registrations.get(client.as_str()).map(|known| known.principal.clone());
        if known.is_none() && !self.may_register() {
            return self.count(Counted::RegistrationLimit);
        }
        let principal = match known {
            Some(known) if named.user.is_none() && known.user.is_some() => named.with_user_of(&known),
            Some(known) if known.is_another_than(&named) => {
                self.take_from_user(client, ReasonCode::NotAuthorized);
                named
            }
            _ => named,
        };
        self.register(client, &principal, RegisteredBy::File);
    }

    /// The client belongs to another user now: the old one's connection and session end, and what waited for it.
    fn take_from_user(&mut self, client: &ClientId, reason: ReasonCode) {
        if let Some(index) = self.session_of_client(client.as_str()) {
            self.cut_off(index, reason);
        }
        if let Some(index) = self.session_of_client(client.as_str()) {
            self.end_session(index);
        }
        self.unregister(client);
    }

    fn unregister(&mut self, client: &ClientId) {
        let Some(Registration { queue, .. }) = self.registrations.remove(client) else { return };
        if let Some(index) = queue {
            let lost = self.sessions[index as usize].queue.messages();
            self.count_by(Counted::Unregistered, lost as u64);
            let ends = self.ends_of_queue(index, Ended::Unregistered);
            self.end_registration_queue(index);
            self.tell_ends(&Addressee::Client(client.clone()), ends);
        }
        self.log_registration(client);
    }

    /// The queue of a registration, made if need be.
    pub(crate) fn registration_queue(&mut self, index: RegistrationIndex) -> SessionIndex {
        if let Some(queue) = self.registrations.entry(index).queue {
            return queue;
        }
        let client = self.registrations.entry(index).client.clone();
        let logged = self.config.durable;
        let id = self.new_queue_id(&client, logged);
        let queue = self.add_queue(Session::of_registration(client.clone(), id, logged));
        self.log_queue_begin(queue, QueueOwner::Registration(client.clone()));
        self.registrations.entry_mut(index).queue = Some(queue);
        let session = self.session_of_client(client.as_str());
        if let Some(place) = session.and_then(|session| self.sessions[session as usize].connection) {
            self.join_registration(place, queue);
        }
        queue
    }

    /// A connection drains the queue of its client's registration from now on.
    pub(crate) fn join_registration(&mut self, place: ConnectionIndex, queue: SessionIndex) {
        self.connections[place as usize].registration = Some(queue);
        let session = &mut self.sessions[queue as usize];
        session.connection = Some(place);
        session.queue.attach();
    }

    /// The queue of a client's registration, if there ever was a push.
    pub(crate) fn registration_queue_of(&self, client: &ClientId) -> Option<SessionIndex> {
        self.registrations.get(client.as_str())?.queue
    }

    fn end_registration_queue(&mut self, index: SessionIndex) {
        let session = self.remove_session(index);
        assert!(session.connection.is_none(), "packet identifiers of a queue that ends may still be answered");
        if session.logged {
            self.append(Record::QueueEnd { queue: session.id });
            self.retiring.ended.push(session.id);
        }
    }

    /// Recovery: a record of the log.
    pub(crate) fn replay_registration(
        &mut self,
        client: ClientId,
        registration: Option<(Principal, RegisteredBy, WallMillis)>,
    ) {
        match registration {
            Some((principal, by, seen)) => drop(self.registrations.set(&client, &principal, by, seen)),
            None => drop(self.registrations.remove(&client)),
        }
        self.retiring.dirty.insert(StateKey::Registration(client));
    }

    /// Recovery: all records have been replayed. Queues find their registrations, sessions their principals.
    pub(crate) fn registrations_recovered(&mut self) {
        let mut queues = self.session_places();
        queues.retain(|&index| self.sessions[index as usize].role == Role::Registration);
        for queue in queues {
            let session = &self.sessions[queue as usize];
            let owner = self.registrations.find(session.client.as_str());
            match owner.filter(|_| session.queue.messages() > 0 || session.queue.backlog.is_some()) {
                Some(owner) => self.registrations.entry_mut(owner).queue = Some(queue),
                None => self.end_registration_queue(queue),
            }
        }
        if self.registrations.len() > 0 {
            self.schedule_sweep();
        }
        for (_, known) in &self.registrations.entries {
            if let Some(index) = self.clients.find(&self.sessions, known.client.as_str()) {
                self.sessions[index as usize].principal = known.principal.clone();
            }
        }
    }
}
