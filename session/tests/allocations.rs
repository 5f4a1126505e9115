//! What is done for every message of a busy connection takes no memory from the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use postroad_base::{
    ClientId, ConnectionId, Message, MessageId, Now, Qos, QueueId, ReasonCode, Tag, TopicName, WallMillis,
};
use postroad_broker::api::{Delivery, Principal};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{Ack, Connect, Packet, Version};
use postroad_session::mqtt::{Connection, Delivered, Handshake, HandshakeStep, Limits, Received};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn connection(version: Version, out: &mut Gather) -> Connection {
    let mut connect = Connect::new(version, "c");
    connect.properties.topic_alias_maximum = 5;
    let mut input = Vec::new();
    Packet::Connect(Box::new(connect)).encode(version, &mut input);
    let limits = Limits::default();
    let Ok(HandshakeStep::Connect { request, .. }) = Handshake.receive(&input, &limits) else { panic!("not let in") };
    let (id, client) = (ConnectionId(1), ClientId::from("c"));
    let (mut connection, _) = Connection::new(id, *request, client, Principal::default(), &limits, Now::default());
    connection.connected(false, &[], &limits, out);
    connection
}

fn delivery(qos: Qos) -> Delivery {
    let message = Message {
        id: MessageId(1),
        topic: TopicName::new("a/topic").expect("valid"),
        payload: Bytes::from_static(&[7; 2000]),
        properties: Bytes::new(),
        qos,
        retain: false,
        expires_at: Some(WallMillis(60_000)),
        publisher: QueueId::NONE,
        extras: None,
    };
    let tag = qos.is_acknowledged().then(|| Tag::new(1).expect("not 0"));
    let (message, identifiers) = (Arc::new(message), Default::default());
    Delivery { message, tag, qos, dup: false, retain: false, topic: None, identifiers }
}

#[test]
fn acknowledgements_and_deliveries_allocate_nothing() {
    for version in Version::ALL {
        let mut out = Gather::new();
        let mut connection = connection(version, &mut out);
        let deliveries = [Qos::AtMostOnce, Qos::AtLeastOnce].map(delivery);
        let mut ack = Vec::new();
        Packet::PubAck(Ack::new(Tag::new(1).expect("not 0"), ReasonCode::Success)).encode(version, &mut ack);
        let limits = Limits::default();
        let round = |connection: &mut Connection, out: &mut Gather| {
            for delivery in &deliveries {
                assert!(matches!(connection.deliver(Now::default(), delivery, out), Delivered::Sent));
            }
            let received = connection.receive(Now::default(), &ack, &limits, out);
            assert!(matches!(received, Ok(Received::Packet { event: Some(_), .. })));
        };
        // The first round makes room in the output, and the alias.
        round(&mut connection, &mut out);
        out.clear();
        assert_eq!(allocations(|| round(&mut connection, &mut out)), 0, "{version:?}");
    }
}
