//! The queues between shards: one per ordered pair, bounded, first in first out.
//!
//! ```text
//! shard 0 ──outbox──► [ queue 0→1, bounded ] ──► shard 1          room: data credits + control
//! ```
//! One queue for data and control, so that the order of a pair is the order of its effects. Data can't
//! fill it: the broker takes a credit for each `Forward`, of another kind for each `Keyed`, and there are fewer credits than
//! places. What
//! control messages do not find room for waits in the sender's outbox, in order, and goes on when the
//! receiver has made room: the receiver always drains, so it moves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use postroad_base::ShardId;
use postroad_broker::api::MeshMessage;

use crate::poller::Doorbell;

/// Places of a queue besides those that data credits can take.
const CONTROL_PLACES: usize = 1024;

#[derive(Debug)]
struct Lane {
    queue: ArrayQueue<MeshMessage>,
    /// The sender has more: the receiver rings it when it has made room.
    sender_waits: AtomicBool,
}

/// One shard's ends of all its queues.
#[derive(Debug)]
pub(crate) struct Mesh {
    shard: ShardId,
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    outgoing: Arc<Lane>,
    incoming: Arc<Lane>,
    doorbell: Doorbell,
    /// Has its queue something that it was not told of yet?
    ring: bool,
    outbox: VecDeque<MeshMessage>,
}

impl Mesh {
    /// The ends for all shards; `doorbells[i]` wakes shard `i`.
    pub(crate) fn full(doorbells: &[Doorbell], credits: u32) -> Vec<Self> {
        let places = 2 * credits as usize + CONTROL_PLACES; // forwards, and keyed publishes
        let lane = || Arc::new(Lane { queue: ArrayQueue::new(places), sender_waits: AtomicBool::new(false) });
        let shards = doorbells.len();
        let lanes: Vec<Vec<Arc<Lane>>> = (0..shards).map(|_| (0..shards).map(|_| lane()).collect()).collect();
        let end = |shard: usize| Self {
            shard: ShardId(u16::try_from(shard).expect("shards are counted in 16 bits")),
            peers: (0..shards)
                .map(|peer| Peer {
                    outgoing: Arc::clone(&lanes[shard][peer]),
                    incoming: Arc::clone(&lanes[peer][shard]),
                    doorbell: doorbells[peer].clone(),
                    ring: false,
                    outbox: VecDeque::new(),
                })
                .collect(),
        };
        (0..shards).map(end).collect()
    }

    /// Sends; the receiver is woken by the next `flush`.
    pub(crate) fn send(&mut self, to: ShardId, message: MeshMessage) {
        debug_assert_ne!(to, self.shard, "a shard does not send to itself");
        let peer = &mut self.peers[usize::from(to.0)];
        peer.outbox.push_back(message);
        peer.ring = true;
    }

    /// Moves what waits into the queues and wakes whom it concerns. Called at the end of each turn.
    pub(crate) fn flush(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.ring || !peer.outbox.is_empty()) {
            peer.flush();
        }
    }

    /// Takes the next message that came in. Rounds over the peers, so that none starves another.
    pub(crate) fn receive(&mut self, from: ShardId) -> Option<MeshMessage> {
        let peer = &self.peers[usize::from(from.0)];
        let message = peer.incoming.queue.pop();
        // Also with the last one in hand: a turn takes a bounded number, which may be exactly what is there.
        if peer.incoming.queue.is_empty() && peer.incoming.sender_waits.swap(false, Ordering::SeqCst) {
            peer.doorbell.ring();
        }
        message
    }

    /// Whether anything came in, or room was made for what waits.
    pub(crate) fn has_work(&self) -> bool {
        self.peers
            .iter()
            .any(|peer| !peer.incoming.queue.is_empty() || (!peer.outbox.is_empty() && !peer.outgoing.queue.is_full()))
    }

    /// The other shards.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ShardId> + use<> {
        let (own, count) = (self.shard.0, self.peers.len());
        (0..count).map(|peer| ShardId(peer as u16)).filter(move |peer| peer.0 != own)
    }

    /// Messages in outboxes: 0 unless a receiver is behind.
    pub(crate) fn waiting(&self) -> usize {
        self.peers.iter().map(|peer| peer.outbox.len()).sum()
    }
}

impl Peer {
    fn flush(&mut self) {
        while let Some(message) = self.outbox.pop_front() {
            if let Err(message) = self.outgoing.queue.push(message) {
                self.outbox.push_front(message);
                self.outgoing.sender_waits.store(true, Ordering::SeqCst);
                break;
            }
            self.ring = true;
        }
        if std::mem::take(&mut self.ring) {
            self.doorbell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);
    /// With one credit of each kind.
    const PLACES: u64 = CONTROL_PLACES as u64 + 2;

    fn pair() -> (Mesh, Mesh) {
        let doorbells = [Doorbell::new().expect("eventfd"), Doorbell::new().expect("eventfd")];
        let mut ends = Mesh::full(&doorbells, 1).into_iter();
        (ends.next().expect("first"), ends.next().expect("second"))
    }

    fn token(message: &MeshMessage) -> u64 {
        match message {
            MeshMessage::InterestSet { token } => *token,
            other => panic!("not what was sent: {other:?}"),
        }
    }

    #[test]
    fn order_holds_beyond_the_room_of_the_queue() {
        let (mut a, mut b) = pair();
        let total = 3 * PLACES;
        for number in 0..total {
            a.send(B, MeshMessage::InterestSet { token: number });
        }
        a.flush();
        assert!(a.waiting() > 0, "more than there is room for");
        let mut received = Vec::new();
        while received.len() < total as usize {
            while let Some(message) = b.receive(A) {
                received.push(token(&message));
            }
            assert!(a.has_work() || a.waiting() == 0);
            a.flush();
        }
        assert_eq!(received, (0..total).collect::<Vec<_>>());
        assert_eq!(a.waiting(), 0);
    }

    /// A receiver that takes exactly what is there never sees the queue empty, and yet must ring.
    #[test]
    fn the_last_message_of_a_full_queue_rings_the_sender() {
        let (mut a, mut b) = pair();
        for number in 0..=PLACES {
            a.send(B, MeshMessage::InterestSet { token: number });
        }
        a.flush();
        for _ in 1..PLACES {
            assert!(b.receive(A).is_some());
            assert!(b.peers[0].incoming.sender_waits.load(Ordering::SeqCst));
        }
        assert!(b.receive(A).is_some());
        assert!(!b.peers[0].incoming.sender_waits.load(Ordering::SeqCst), "told that there is room");
    }

    #[test]
    fn a_receiver_that_made_room_rings_the_sender() {
        let (mut a, mut b) = pair();
        for number in 0..=PLACES {
            a.send(B, MeshMessage::InterestSet { token: number });
        }
        a.flush();
        assert_eq!(a.waiting(), 1);
        while b.receive(A).is_some() {}
        assert!(a.has_work(), "the outbox can go on");
        a.flush();
        assert_eq!(b.receive(A).as_ref().map(token), Some(PLACES));
    }
}
