//! Registrations: clients that can be addressed while they are away, and what waits for them (DESIGN 5).
//!
//! A client is registered by `auth.file`, by its first authenticated connection, or by a push to it where unknown clients
//! are allowed. Directed pushes belong to the registration, not to the MQTT session: a clean start discards none of them.
//!
//! The queue of a registration begins with its first push, since most clients never get one. It is a [`Session`] of
//! [`Role::Registration`]: stored, drained, retired and recovered as any other; an empty one ends at the next recovery.
//!
//! A registration belongs to its user: no other may connect as its client. `auth.file` has the last word on whose it is.

use ahash::{AHashMap, AHashSet};
use base::{ClientId, QueueOwner, Record, RegisteredBy, SessionExpiry};
use bytestring::ByteString;
use postroad_base as base;
use slab::Slab;

use crate::api::{Counted, Principal, StateKey};
use crate::broker::Broker;
use crate::session::{ConnectionIndex, Role, Session, SessionIndex};

/// Place of a registration in the slab.
pub(crate) type RegistrationIndex = u32;

/// A client that is known, whether it is here or not.
#[derive(Debug)]
pub(crate) struct Registration {
    pub client: ClientId,
    /// Who it is: from `auth.file`, or who it proved to be last.
    pub principal: Principal,
    by: RegisteredBy,
    /// Its queue, once there was a push.
    pub queue: Option<SessionIndex>,
}

impl Registration {
    fn record(&self) -> Record {
        let Principal { user, groups } = &self.principal;
        Record::Register { client: self.client.clone(), by: self.by, user: user.clone(), groups: groups.to_vec() }
    }
}

/// All registrations of this shard, by client, user and group.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    entries: Slab<Registration>,
    clients: AHashMap<ClientId, RegistrationIndex>,
    users: AHashMap<ByteString, Vec<RegistrationIndex>>,
    groups: AHashMap<ByteString, Vec<RegistrationIndex>>,
}

impl Registrations {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn find(&self, client: &str) -> Option<RegistrationIndex> {
        self.clients.get(client).copied()
    }

    pub fn get(&self, client: &str) -> Option<&Registration> {
        self.find(client).map(|index| &self.entries[index as usize])
    }

    pub fn of_user(&self, user: &str) -> Vec<RegistrationIndex> {
        self.users.get(user).cloned().unwrap_or_default()
    }

    pub fn of_group(&self, group: &str) -> Vec<RegistrationIndex> {
        self.groups.get(group).cloned().unwrap_or_default()
    }

    pub fn all(&self) -> Vec<RegistrationIndex> {
        self.entries.iter().map(|(index, _)| index as RegistrationIndex).collect()
    }

    pub fn entry(&self, index: RegistrationIndex) -> &Registration {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: RegistrationIndex) -> &mut Registration {
        &mut self.entries[index as usize]
    }

    /// Enters or changes one; whether something is different now.
    fn set(&mut self, client: &ClientId, principal: &Principal, by: RegisteredBy) -> bool {
        let Some(index) = self.find(client.as_str()) else {
            let (client, principal) = (client.clone(), principal.clone());
            let entry = Registration { client: client.clone(), principal: Principal::default(), by, queue: None };
            let index = u32::try_from(self.entries.insert(entry)).expect("fewer registrations than 2^32");
            self.clients.insert(client, index);
            self.enter(index, principal);
            return true;
        };
        let known = self.entry_mut(index);
        if known.principal == *principal && known.by == by {
            return false;
        }
        known.by = by;
        self.leave(index);
        self.enter(index, principal.clone());
        true
    }

    fn remove(&mut self, client: &ClientId) -> Option<Registration> {
        let index = self.clients.remove(client)?;
        self.leave(index);
        Some(self.entries.remove(index as usize))
    }

    fn enter(&mut self, index: RegistrationIndex, principal: Principal) {
        if let Some(user) = &principal.user {
            self.users.entry(user.clone()).or_default().push(index);
        }
        for group in principal.groups.iter() {
            self.groups.entry(group.clone()).or_default().push(index);
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

fn take_out(map: &mut AHashMap<ByteString, Vec<RegistrationIndex>>, name: &ByteString, index: RegistrationIndex) {
    let Some(entries) = map.get_mut(name) else { return };
    entries.retain(|other| *other != index);
    if entries.is_empty() {
        map.remove(name);
    }
}

impl Broker {
    /// The client has connected and proved to be this one: its first authenticated connection registers it.
    pub(crate) fn register_connected(&mut self, client: &ClientId, principal: &Principal) {
        let known = self.registrations.get(client.as_str()).map(|known| known.by);
        let proved = principal.user.is_some() || !principal.groups.is_empty();
        match known {
            Some(RegisteredBy::File) if proved => self.register(client, principal, RegisteredBy::File),
            _ if proved => self.register(client, principal, RegisteredBy::Connection),
            _ => {}
        }
    }

    pub(crate) fn register(&mut self, client: &ClientId, principal: &Principal, by: RegisteredBy) {
        if self.registrations.set(client, principal, by) {
            self.log_registration(client);
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
        self.registrations.len() < self.config.registrations_max
    }

    /// These are the clients of this shard that `auth.file` names now. One that it names no longer is unregistered, unless
    /// it is connected: then its connection has registered it.
    pub(crate) fn registrations_of_file(&mut self, clients: Vec<(ClientId, Principal)>) {
        let named: AHashSet<ClientId> = clients.iter().map(|(client, _)| client.clone()).collect();
        for (client, principal) in clients {
            if self.registrations.get(client.as_str()).is_some_and(|known| known.principal.is_another_than(&principal))
            {
                self.unregister(&client); // what waited was for another user
            }
            if self.registrations.find(client.as_str()).is_some() || self.may_register() {
                self.register(&client, &principal, RegisteredBy::File);
            } else {
                self.count(Counted::RegistrationLimit);
            }
        }
        let gone =
            |(_, known): &(usize, &Registration)| known.by == RegisteredBy::File && !named.contains(&known.client);
        let gone: Vec<_> = self.registrations.entries.iter().filter(gone).map(|(_, k)| k.client.clone()).collect();
        for client in gone {
            match self.session_of_client(&client).and_then(|index| self.sessions[index as usize].connection) {
                Some(_) => self.keep_for_connection(&client),
                None => self.unregister(&client),
            }
        }
    }

    fn keep_for_connection(&mut self, client: &ClientId) {
        let Some(principal) = self.registrations.get(client.as_str()).map(|known| known.principal.clone()) else {
            return;
        };
        self.register(client, &principal, RegisteredBy::Connection);
    }

    fn unregister(&mut self, client: &ClientId) {
        let Some(Registration { queue, .. }) = self.registrations.remove(client) else { return };
        if let Some(index) = queue {
            let lost = self.sessions[index as usize].queue.messages();
            self.count_by(Counted::Unregistered, lost as u64);
            self.end_registration_queue(index);
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
        if logged {
            let (owner, at) = (QueueOwner::Registration(client.clone()), self.now.wall);
            self.append(Record::QueueBegin { queue: id, owner, expiry: SessionExpiry::NEVER, at });
            self.mark_dirty(queue);
        }
        self.registrations.entry_mut(index).queue = Some(queue);
        let session = self.session_of_client(&client);
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
        let session = self.sessions.remove(index as usize);
        self.queues.remove(&session.id);
        if let Some(place) = session.connection {
            self.connections[place as usize].registration = None;
        }
        if session.logged {
            self.append(Record::QueueEnd { queue: session.id });
            self.retiring.ended.push(session.id);
        }
    }

    /// Recovery: a record of the log.
    pub(crate) fn replay_registration(&mut self, client: ClientId, registration: Option<(Principal, RegisteredBy)>) {
        match registration {
            Some((principal, by)) => drop(self.registrations.set(&client, &principal, by)),
            None => drop(self.registrations.remove(&client)),
        }
        self.retiring.dirty.insert(StateKey::Registration(client));
    }

    /// Recovery: all records have been replayed. Queues find their registrations, sessions their principals.
    pub(crate) fn registrations_recovered(&mut self) {
        let is_registration = |index: &SessionIndex| self.sessions[*index as usize].role == Role::Registration;
        let queues: Vec<SessionIndex> = self.queues.values().copied().filter(is_registration).collect();
        for queue in queues {
            let session = &self.sessions[queue as usize];
            let owner = self.registrations.find(session.client.as_str());
            match owner.filter(|_| session.queue.messages() > 0) {
                Some(owner) => self.registrations.entry_mut(owner).queue = Some(queue),
                None => self.end_registration_queue(queue),
            }
        }
        for (_, known) in &self.registrations.entries {
            if let Some(&index) = self.clients.get(&known.client) {
                self.sessions[index as usize].principal = known.principal.clone();
            }
        }
    }

    pub(crate) fn session_of_client(&self, client: &ClientId) -> Option<SessionIndex> {
        self.clients.get(client).copied()
    }
}
