//! Directed pushes: the reserved roots `$client/<id>/…`, `$user/<user>/…`, `$group/<name>/…`, `$all/…`
//! (DESIGN 5). The device sees the rest of the topic.
//!
//! Nobody has to subscribe to them: a registration is found by its client's name, or by who its client is; a client
//! without one by its session. A client lives on one shard, so `$client/…` goes there only; the others go to every
//! shard. Wildcards of ordinary subscriptions don't match them, for they start with `$`.

use base::{ClientId, Message, RegisteredBy, TopicName};
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Counted, Forwarded, Principal};
use crate::broker::Broker;
use crate::config::UnknownClient;
use crate::registration::RegistrationIndex;
use crate::route::{Match, Origin};
use crate::session::{Role, Session, SessionIndex};

/// To whom a message is directed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root<'a> {
    Client(&'a str),
    User(&'a str),
    Group(&'a str),
    All,
}

impl Root<'_> {
    fn is_to_many(&self) -> bool {
        !matches!(self, Self::Client(_))
    }
}

impl Broker {
    /// Adds the recipients of a directed push to what `collect` has found.
    pub(crate) fn collect_directed(&mut self, message: &Message, origin: Origin) {
        let Some((root, _)) = split(message.topic.as_str()) else { return };
        if origin == Origin::Here && root.is_to_many() && !self.has_credit_everywhere() {
            // It waits for the credit, and is collected anew then: not twice for nothing.
            return self.collect_shards(root);
        }
        match root {
            Root::Client(name) => self.collect_client(name, message),
            Root::User(name) => self.collect_registered(&self.registrations.of_user(name), message),
            Root::Group(name) => self.collect_registered(&self.registrations.of_group(name), message),
            Root::All => self.collect_all(message),
        }
        if origin == Origin::Here {
            self.collect_shards(root);
        }
    }

    fn has_credit_everywhere(&self) -> bool {
        self.mesh.others().all(|shard| self.mesh.has_credit(shard))
    }

    fn collect_shards(&mut self, root: Root<'_>) {
        let Self { scratch, mesh, config, .. } = self;
        match root {
            Root::Client(name) => scratch.add_shard(config.placement.home(name.as_bytes()), config.shard),
            _ => mesh.others().for_each(|shard| scratch.add_shard(shard, config.shard)),
        }
    }

    fn collect_client(&mut self, name: &str, message: &Message) {
        if self.config.placement.home(name.as_bytes()) != self.config.shard {
            return;
        }
        if let Some(index) = self.registrations.find(name) {
            return self.collect_registered(&[index], message);
        }
        if let Some(session) = self.session_of_client(name) {
            return self.add_push(session, message);
        }
        // QoS 0 would not wait for it.
        if self.config.limits.unknown_client == UnknownClient::Reject || !message.qos.is_acknowledged() {
            self.scratch.refusal = Some((Counted::UnknownClient, Forwarded::UnknownClient));
            return;
        }
        if !self.may_register() {
            self.scratch.refusal = Some((Counted::RegistrationLimit, Forwarded::Full));
            return;
        }
        self.register(&ClientId::from(name), &Principal::default(), RegisteredBy::Push);
        self.collect_registered(&self.registrations.find(name).into_iter().collect::<Vec<_>>(), message);
    }

    /// Every registered client, and whoever has a session without being registered; callers of the API are no clients.
    fn collect_all(&mut self, message: &Message) {
        self.collect_registered(&self.registrations.all(), message);
        let is_meant = |&index: &SessionIndex| {
            let session = &self.sessions[index as usize];
            let is_caller = session.connection.is_some_and(|place| self.connections[place as usize].is_caller());
            !is_caller && self.registrations.find(session.client.as_str()).is_none()
        };
        let mut sessions: Vec<SessionIndex> = self.clients.iter().filter(is_meant).collect();
        sessions.sort_unstable();
        for session in sessions {
            self.add_push(session, message);
        }
    }

    fn collect_registered(&mut self, registrations: &[RegistrationIndex], message: &Message) {
        for &index in registrations {
            let session = self.session_of_client(self.registrations.entry(index).client.as_str());
            match (message.qos.is_acknowledged(), session) {
                (true, Some(session)) => {
                    let queue = self.registration_queue(index);
                    self.move_push(session, queue, message);
                }
                (true, None) => {
                    let queue = self.registration_queue(index);
                    self.add_push(queue, message);
                }
                // QoS 0 does not wait.
                (false, Some(session)) => self.add_push(session, message),
                (false, None) => self.scratch.absent += 1,
            }
        }
    }

    /// The client's session may have subscribed to it as well: it gets one copy, which the registration keeps.
    fn move_push(&mut self, session: SessionIndex, registration: SessionIndex, message: &Message) {
        let Self { scratch, sessions, .. } = self;
        let subscriber = &sessions[session as usize];
        if subscriber.mark_walk != scratch.walk() {
            return self.add_push(registration, message);
        }
        let known = &mut scratch.matches[subscriber.mark as usize];
        (known.session, known.qos, known.retain) = (registration, message.qos, false);
    }

    /// At the publisher's level: the recipient has not chosen one.
    fn add_push(&mut self, index: SessionIndex, message: &Message) {
        let Self { scratch, sessions, .. } = self;
        if sessions[index as usize].mark_walk == scratch.walk() {
            return; // subscribed to it as well
        }
        let (qos, identifiers) = (message.qos, SmallVec::new());
        scratch.matches.push(Match { session: index, qos, retain: false, identifiers, full: false, group: None });
    }

    /// The topic as the recipient sees it, if the message was directed to it. Who watches the pushes of others by an
    /// ordinary subscription sees the whole topic.
    #[inline]
    pub(crate) fn topic_of_device(&self, index: SessionIndex, topic: &TopicName) -> Option<TopicName> {
        if topic.is_reserved() { self.topic_of_addressed(index, topic) } else { None }
    }

    fn topic_of_addressed(&self, index: SessionIndex, topic: &TopicName) -> Option<TopicName> {
        let (root, rest) = split(topic.as_str())?;
        let Session { role, client, principal, .. } = &self.sessions[index as usize];
        let addressed = *role == Role::Registration
            || *role == Role::Session
                && match root {
                    Root::Client(name) => client.as_str() == name,
                    Root::User(name) => principal.user.as_deref() == Some(name),
                    Root::Group(name) => principal.groups.iter().any(|group| *group == name),
                    Root::All => true,
                };
        addressed.then(|| TopicName::new(topic.as_byte_string().slice_ref(rest)).ok())?
    }
}

/// A push is not retained: it has recipients of its own, and waits for them.
pub(crate) fn is_directed(topic: &TopicName) -> bool {
    topic.is_reserved() && split(topic.as_str()).is_some()
}

/// Whether it is pushed to a user, a group or all.
pub(crate) fn is_to_many(topic: &TopicName) -> bool {
    topic.is_reserved() && split(topic.as_str()).is_some_and(|(root, _)| root.is_to_many())
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
    fn the_root_and_the_rest() {
        let check = |topic: &'static str| split(topic).map(|(root, rest)| (format!("{root:?}"), rest));
        assert_eq!(check("$client/car-7/cmd/lock"), Some(("Client(\"car-7\")".into(), "cmd/lock")));
        assert_eq!(check("$all/news"), Some(("All".into(), "news")));
        assert_eq!(check("$user/anna/"), Some(("User(\"anna\")".into(), "")));
        assert_eq!(check("$group/a/b/c"), Some(("Group(\"a\")".into(), "b/c")));
        assert_eq!(check("$client/car-7"), None);
        assert_eq!(check("$SYS/x"), None);
        assert_eq!(check("a/b"), None);
    }
}
