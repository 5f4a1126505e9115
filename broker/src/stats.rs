//! What a shard tells about itself, for `$SYS` and metrics.

use postroad_base::{DeliveryTimes, Outcome, WallMillis};

use crate::api::Counted;

/// Number of variants of [`Counted`].
pub const COUNTED: usize = 36;

impl Counted {
    /// Every variant, in the order of declaration.
    pub const ALL: [Self; COUNTED] = [
        Self::NoSubscriber,
        Self::DroppedQos0Congested,
        Self::DroppedQos0Offline,
        Self::QueueOverflow,
        Self::Expired,
        Self::SessionEnded,
        Self::RefusedByReceiver,
        Self::NotAuthorized,
        Self::DiskFull,
        Self::RetainedLimit,
        Self::SubscriptionLimit,
        Self::SubscriptionRevoked,
        Self::TopicLevels,
        Self::TakenOver,
        Self::SessionExpired,
        Self::WillPublished,
        Self::UnknownTag,
        Self::UnknownClient,
        Self::RegistrationLimit,
        Self::Unregistered,
        Self::Poison,
        Self::LateAcknowledgement,
        Self::StuckConsumer,
        Self::BadWish,
        Self::KeyConflict,
        Self::KeyLimit,
        Self::ScheduledLimit,
        Self::ScheduledDelay,
        Self::BadPull,
        Self::GroupDeleted,
        Self::LeaseOver,
        Self::PluginDropped,
        Self::PluginRefused,
        Self::PluginParked,
        Self::PluginLeftOut,
        Self::PluginRepairFailed,
    ];

    /// The value of the metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSubscriber => "no_subscriber",
            Self::DroppedQos0Congested => "dropped_qos0_congested",
            Self::DroppedQos0Offline => "dropped_qos0_offline",
            Self::QueueOverflow => "queue_overflow",
            Self::Expired => "expired",
            Self::SessionEnded => "session_ended",
            Self::RefusedByReceiver => "refused_by_receiver",
            Self::NotAuthorized => "not_authorized",
            Self::DiskFull => "disk_full",
            Self::RetainedLimit => "retained_limit",
            Self::SubscriptionLimit => "subscription_limit",
            Self::SubscriptionRevoked => "subscription_revoked",
            Self::TopicLevels => "topic_levels",
            Self::TakenOver => "taken_over",
            Self::SessionExpired => "session_expired",
            Self::WillPublished => "will_published",
            Self::UnknownTag => "unknown_tag",
            Self::UnknownClient => "unknown_client",
            Self::RegistrationLimit => "registration_limit",
            Self::Unregistered => "unregistered",
            Self::Poison => "poison",
            Self::LateAcknowledgement => "late_acknowledgement",
            Self::StuckConsumer => "stuck_consumer",
            Self::BadWish => "bad_wish",
            Self::KeyConflict => "key_conflict",
            Self::KeyLimit => "key_limit",
            Self::ScheduledLimit => "scheduled_limit",
            Self::ScheduledDelay => "scheduled_delay",
            Self::BadPull => "bad_pull",
            Self::GroupDeleted => "group_deleted",
            Self::LeaseOver => "lease_over",
            Self::PluginDropped => "plugin_dropped",
            Self::PluginRefused => "plugin_refused",
            Self::PluginParked => "plugin_parked",
            Self::PluginLeftOut => "plugin_left_out",
            Self::PluginRepairFailed => "plugin_repair_failed",
        }
    }
}

/// Deliveries of QoS 1 and 2 that wait and are not in flight, by the lane by which they are to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneDepths {
    /// Of clients that are here, and have what had waited for them when they came.
    pub realtime: usize,
    /// Of clients that are away.
    pub offline: usize,
    /// Of clients that are back and whose drain has not begun.
    pub awaiting: usize,
    /// Of clients whose drain is under way, also what has come behind their backlog meanwhile.
    pub draining: usize,
}

/// How a client stands whose deliveries wait, in the order of [`LaneDepths`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is here, and has what had waited for it when it came.
    Realtime = 0,
    /// It is away.
    Offline = 1,
    /// It is back, and its drain has not begun.
    Awaiting = 2,
    /// Its drain is under way.
    Draining = 3,
}

impl LaneDepths {
    /// Of clients that stand so.
    pub(crate) fn of(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Realtime => &mut self.realtime,
            Standing::Offline => &mut self.offline,
            Standing::Awaiting => &mut self.awaiting,
            Standing::Draining => &mut self.draining,
        }
    }
}

/// A shard in one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Clients that can be addressed while they are away.
    pub registrations: usize,
    /// Sessions that have ended and still give deliveries back to their share groups.
    pub ending: usize,
    /// Connections that have a session here.
    pub connections: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Bytes of their topics, properties and payloads.
    pub retained_bytes: usize,
    /// Deliveries that wait in memory, not in flight.
    pub queued_messages: usize,
    /// Bytes of the deliveries that wait or are in flight.
    pub queued_bytes: usize,
    /// Deliveries in flight.
    pub inflight: usize,
    /// Dead letters.
    pub letters: usize,
    /// Bytes of their payloads, topics and properties.
    pub letters_bytes: usize,
    /// Idempotency keys.
    pub keys: usize,
    /// Messages that are to be published later, and that are due and not with all shards yet.
    pub scheduled: usize,
    /// Bytes of their payloads, topics and properties.
    pub scheduled_bytes: usize,
    /// Those of them that are on their way to other shards.
    pub scheduled_under_way: usize,
    /// Consumer groups.
    pub groups: usize,
    /// Deliveries in their queues.
    pub group_messages: usize,
    /// Of them, those that a consumer has.
    pub group_leased: usize,
    /// By lane, those that wait for clients.
    pub lanes: LaneDepths,
    /// In flight, and not acknowledged in time: to be sent again on the connection that they were sent on.
    pub overdue: usize,
    /// By [`Standing`], when the oldest one that waits was published: `None` if none waits, `Some(None)` if before the start of
    /// the server, where that is all that is known.
    pub oldest: [Option<Option<WallMillis>>; 4],
    /// Clients that are back and whose drain has not begun.
    pub drains_awaiting: usize,
    /// Clients whose drain is under way.
    pub drains_begun: usize,
    /// Deliveries of QoS 1 and 2 put in flight, other than drained ones; those that were sent before, again.
    pub realtime: u64,
    /// Deliveries that had waited when their client came back, put in flight.
    pub drained: u64,
    /// What was sent again on connections that live: PUBLISH and PUBREL.
    pub retried: u64,
    /// Of these the deliveries (PUBLISH).
    pub resent_live: u64,
    /// Deliveries that were sent again after a reconnect, or after a crash.
    pub resent_reconnect: u64,
    /// Times that a client asked for deliveries (`$pull/<n>`), or for none any more.
    pub pulls: u64,
    /// Deliveries given to consumers of groups, each time.
    pub leased: u64,
    /// Messages taken in from clients.
    pub received: u64,
    /// Messages handed to connections.
    pub sent: u64,
    /// Deliveries of QoS 1 and 2 that are over, by outcome, in the order of [`Outcome::ALL`]; not those that went with their
    /// session.
    pub ended: [u64; Outcome::ALL.len()],
    /// How long those took that receivers have.
    pub times: DeliveryTimes,
    /// By reason.
    pub counted: Counts,
}

/// How often each reason was counted, in the order of [`Counted::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; COUNTED]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; COUNTED])
    }
}

impl Counts {
    pub(crate) fn add(&mut self, what: Counted, by: u64) {
        self.0[what as usize] += by;
    }
}

impl Stats {
    /// How many deliveries ended so.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome as usize]
    }

    /// How often this was counted.
    pub fn count(&self, what: Counted) -> u64 {
        self.counted.0[what as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_a_name_of_its_own() {
        for (place, what) in Counted::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, place, "{what:?}");
        }
        let mut names = Counted::ALL.map(Counted::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]));
    }
}
