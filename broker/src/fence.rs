//! A fence between shards: what the others had taken in before has arrived.
//!
//! Messages between two shards arrive in the order of sending, but a retained message goes two ways: to the shards that
//! want it, and to the home of its topic. Who asks the home for a new subscription could therefore miss it (it is on
//! its way to the home, and was sent before this shard was known to want it), or get it twice (it is at the home, and
//! on its way to us). A question to all shards whose answer follows what they have sent closes both gaps.
//!
//! Rounds are shared: whoever comes while one is under way waits for the next, which serves all of them. So a crowd of
//! subscribers costs two rounds, not one for each.

use base::ShardId;
use postroad_base as base;

use crate::api::{Effect, MeshMessage};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::turns::Step;

/// The fences of a shard.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    under_way: Option<Round>,
    /// Steps for the next round: one that is under way may have passed some shard before they came.
    waiting: Vec<Step>,
}

#[derive(Debug)]
struct Round {
    token: u64,
    /// Shards that have not answered.
    missing: usize,
    then: Vec<Step>,
}

impl Broker {
    /// Takes the step once all that the other shards have taken in before now has arrived from them.
    pub(crate) fn behind_fence(&mut self, step: Step) {
        self.fences.waiting.push(step);
        if self.fences.under_way.is_none() {
            self.begin_fence();
        }
    }

    fn begin_fence(&mut self) {
        let then = std::mem::take(&mut self.fences.waiting);
        let (token, missing) = (self.mesh.next_token(), self.mesh.others().count());
        if missing == 0 {
            return self.later.extend(then);
        }
        self.fences.under_way = Some(Round { token, missing, then });
        for to in self.mesh.others() {
            self.effects.push_back(Effect::Mesh { to, message: MeshMessage::Fence { token } });
        }
    }

    /// Answered behind the commit of all that was appended, since a QoS 2 message leaves for other shards after its own.
    pub(crate) fn fence(&mut self, from: ShardId, token: u64) {
        let answer = Effect::Mesh { to: from, message: MeshMessage::FenceReached { token } };
        self.after_commit(Waiter::Emit(Box::new(answer)));
    }

    pub(crate) fn fence_reached(&mut self, token: u64) {
        let Some(round) = self.fences.under_way.as_mut().filter(|round| round.token == token) else { return };
        round.missing -= 1;
        if round.missing > 0 {
            return;
        }
        if let Some(round) = self.fences.under_way.take() {
            self.later.extend(round.then);
        }
        if !self.fences.waiting.is_empty() {
            self.begin_fence();
        }
    }
}
