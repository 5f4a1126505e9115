//! What the examples share: clients, a message, and a log that commits at once.

use base::{
    ConnectionId, Message, MessageId, MonoMillis, Now, Qos, QueueId, ReasonCode, Sequence, SessionExpiry, TopicName,
    WallMillis,
};
use postroad_base as base;
use postroad_broker::api::{ClientName, Connect, Effect, Event, Principal};
use postroad_broker::{Broker, Resend};

pub const NOW: Now = Now { mono: MonoMillis(1), wall: WallMillis(1_000_000) };

pub fn connect(number: u64, expiry: SessionExpiry) -> Event {
    Event::Connect(Box::new(Connect {
        connection: ConnectionId(number),
        name: ClientName::Chosen,
        client: format!("client-{number}").as_str().into(),
        principal: Principal::default(),
        clean_start: false,
        expiry,
        receive_maximum: 100,
        delivery: None,
        will: None,
        hears_refusals: true,
        resend: Resend::Reconnect,
    }))
}

pub fn message(topic: &str, qos: Qos) -> Message {
    Message {
        id: MessageId(0),
        topic: TopicName::new(topic).expect("a topic"),
        payload: vec![7; 64].into(),
        properties: Default::default(),
        qos,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

/// Commits what an event brought about and acknowledges what is delivered, until nothing follows; how much that was.
/// `appended` counts the records of the broker. `releases`: QoS 2 publishes are released once they are answered.
pub fn settle(broker: &mut Broker, appended: &mut u64, releases: bool) -> u64 {
    let mut delivered = 0;
    let reason = ReasonCode::Success;
    loop {
        let before = *appended;
        while let Some(effect) = broker.poll() {
            match effect {
                Effect::Append { record } => {
                    drop(std::hint::black_box(record));
                    *appended += 1;
                }
                Effect::Deliver { connection, delivery } => {
                    delivered += 1;
                    match (delivery.tag, delivery.qos) {
                        (Some(tag), Qos::AtLeastOnce) => {
                            broker.handle(NOW, Event::Acknowledge { connection, tag, reason });
                        }
                        (Some(tag), _) => broker.handle(NOW, Event::Receive { connection, tag, reason }),
                        _ => drop(std::hint::black_box(delivery)),
                    }
                }
                Effect::ReleaseDelivery { connection, tag, .. } => {
                    broker.handle(NOW, Event::Complete { connection, tag });
                }
                Effect::Published { connection, tag, .. } if releases => {
                    broker.handle(NOW, Event::Release { connection, tag });
                }
                _ => {}
            }
        }
        if *appended == before {
            return delivered;
        }
        broker.handle(NOW, Event::Committed { upto: Sequence(*appended) });
    }
}
