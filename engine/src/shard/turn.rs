//! What happens in a turn, and in which order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_base::ShardId;
use postroad_broker::api::{Event, MeshMessage};

use super::{DOORS_MAX, Order, Phase, Shard, TOKEN_ALARM, TOKEN_DOOR, TOKEN_DOORBELL, TOKEN_LOG};
use crate::coalesce::Inputs;
use crate::config::Config;
use crate::listener::{self, SocketOptions};
use crate::poller::Ready;
use crate::ramp::Ramp;

/// What the loop does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is more to do.
    Turn,
    /// Wait in [`Shard::sleep`].
    Sleep,
    /// Do nothing for so long, whoever comes meanwhile.
    Coalesce(Duration),
    /// The shard's life is over.
    Stop,
}

/// What clients may take of a turn, in packets' worth; what one call brings is taken in.
const WORTH_PER_TURN: u64 = 4096;
/// Mesh messages taken from one peer in one turn: the rest waits for the next, so that clients get theirs.
const MESH_MESSAGES_PER_TURN: usize = 1024;

impl Shard {
    /// Does everything that is due now.
    pub(crate) fn turn(&mut self) -> Next {
        self.witnessed(Self::take_turn)
    }

    fn take_turn(&mut self) -> Next {
        self.now = self.common.clock.now();
        self.codecs.set_time(self.now);
        self.inbox.doorbell.awake();
        self.inputs = Inputs::default();
        self.worth = 0;
        if !self.watchers.is_empty() {
            self.forget_watchers();
        }
        let mut ready = std::mem::take(&mut self.ready);
        if let Err(error) = self.poller.collect(&mut ready) {
            // epoll_wait can only fail for a bug of ours.
            self.poison(format!("epoll_wait: {error}"));
        }
        self.read_those_again();
        for one in &ready {
            self.handle_ready(*one);
        }
        ready.clear();
        self.ready = ready;
        for door in std::mem::take(&mut self.doors_again) {
            self.accept_some(door);
        }
        self.take_orders();
        self.take_arrivals();
        self.publish_for_callers();
        self.take_mesh();
        self.expire();
        self.settle();
        self.advance_phase();
        self.counters.turns += 1;
        self.coalescing.found(self.inputs);
        self.watch_stall();
        self.next()
    }

    fn next(&mut self) -> Next {
        if self.phase == Phase::Stopped {
            return Next::Stop;
        }
        if self.has_work() {
            return Next::Turn;
        }
        if let Some(time) = self.coalescing_time() {
            return Next::Coalesce(time);
        }
        self.inbox.doorbell.will_sleep();
        if self.has_work() { Next::Turn } else { Next::Sleep }
    }

    /// Not while a commit is under way: many wait for its end.
    fn coalescing_time(&mut self) -> Option<Duration> {
        if self.phase == Phase::Serving && self.log_is_idle() { self.coalescing.begin() } else { None }
    }

    /// Waits for the descriptors, on this thread.
    pub(crate) fn sleep(&mut self) -> std::io::Result<()> {
        let beside_commit = !self.log_is_idle();
        let begin = Instant::now();
        self.poller.wait()?;
        // The end of a commit says nothing of how soon the next packet comes.
        self.coalescing.waited(if beside_commit { Duration::MAX } else { begin.elapsed() });
        Ok(())
    }

    pub(super) fn has_work(&self) -> bool {
        let io = !self.again.is_empty() || !self.doors_again.is_empty() || !self.inbox.is_empty();
        io || self.mesh.has_work() || self.broker.has_steps() || self.callers_have_work()
    }

    fn handle_ready(&mut self, ready: Ready) {
        match ready.token {
            TOKEN_DOORBELL => {}
            TOKEN_ALARM => self.alarm.fired(),
            TOKEN_LOG => self.commit_ended(),
            token if token > TOKEN_DOOR - DOORS_MAX => {
                let door = usize::try_from(TOKEN_DOOR - token).expect("below 1,024");
                self.accept_some(door);
            }
            _ => self.handle_ready_connection(ready),
        }
    }

    fn handle_ready_connection(&mut self, ready: Ready) {
        let id = postroad_base::ConnectionId(ready.token);
        let Some(connection) = self.connection(id) else { return };
        connection.flags.hangup |= ready.hangup;
        if ready.write && connection.flags.blocked {
            connection.flags.blocked = false;
            self.mark_dirty(id);
        }
        if ready.read && self.has_read_enough() {
            self.read_again(id);
        } else if ready.read {
            self.read(id);
        }
    }

    /// They stand in front of those that become ready in this turn; who does not get his share of it stays in front.
    fn read_those_again(&mut self) {
        let mut again = std::mem::take(&mut self.again);
        let mut read = 0;
        for &id in &again {
            if self.has_read_enough() {
                break;
            }
            read += 1;
            if let Some(flags) = self.flags(id) {
                flags.again = false;
                self.read(id);
            }
        }
        again.drain(..read);
        again.append(&mut self.again);
        self.again = again;
    }

    /// The others wait for the next turn, so that commits and steps, which are what many wait for, don't.
    pub(super) fn has_read_enough(&self) -> bool {
        self.worth >= WORTH_PER_TURN
    }

    fn take_orders(&mut self) {
        for _ in 0..self.inbox.orders.len() {
            let Some(order) = self.inbox.orders.pop() else { return };
            match order {
                Order::Reload(live) => self.reload(live),
                Order::Drain => self.begin_drain(),
                Order::Work(done) => self.work_done(done),
                Order::Asked => self.take_requests(),
                Order::Checked { connection, client, outcome } => self.checked(connection, client, outcome),
                Order::Abort => self.phase = Phase::Stopped,
                Order::Plugins(step) => self.take_step(step),
                Order::WhoIs { queue, answer } => self.tell_who(queue, &answer),
            }
        }
    }

    /// Those that are there: what is asked meanwhile waits for the next turn.
    fn take_requests(&mut self) {
        for _ in 0..self.requests.len() {
            let Ok(request) = self.requests.try_recv() else { return };
            self.answer(request);
        }
    }

    fn reload(&mut self, live: Arc<super::Live>) {
        self.broker.set_access(Arc::clone(&live.acl));
        self.broker.set_limits(live.broker);
        self.broker.set_retry_topics(&crate::engine::retry_topics(&live.config));
        self.coalescing.set_time(live.config.coalesce);
        self.live = live;
        for door in &self.doors {
            if let Err(error) = socket_options(&self.live.config).apply(&door.listener) {
                tracing::error!(shard = self.id.0, %error, "a listener does not take its new options");
            }
        }
        self.register_named_clients();
    }

    /// At the end of a piece of work: the longest one between two looks at the clients is what they feel.
    pub(super) fn watch_stall(&mut self) {
        if let Some(millis) = self.counters.worked(self.now, self.common.clock.now()) {
            tracing::warn!(shard = self.id.0, millis, "the shard took longer than stall_max for one turn");
        }
    }

    fn take_arrivals(&mut self) {
        while let Some(arrival) = self.inbox.arrivals.pop() {
            self.arrive(arrival);
        }
    }

    fn take_mesh(&mut self) {
        for from in self.mesh.peers() {
            self.take_mesh_from(from);
        }
    }

    fn take_mesh_from(&mut self, from: ShardId) {
        for taken in 0..MESH_MESSAGES_PER_TURN {
            let Some(message) = self.mesh.receive(from) else { return };
            self.inputs.packets += 1;
            self.inputs.sources += u64::from(taken == 0);
            take_in_hand(&message);
            self.handle(Event::Mesh { from, message });
            self.drain_effects();
            crate::crash::take_in_hand(None);
        }
    }

    /// Everything that follows from what was handled: effects, writes, and what those bring about.
    pub(super) fn settle(&mut self) {
        self.drain_effects();
        self.carry_commit(); // the disk works while the sockets are written
        while !self.dirty.is_empty() {
            self.write_dirty();
            self.drain_effects();
        }
        self.mesh.flush();
        self.carry_commit();
        self.tell_of_new_letters();
        self.set_alarm();
    }

    fn advance_phase(&mut self) {
        match self.phase {
            Phase::Announcing if self.mesh.waiting() == 0 => {
                self.phase = Phase::Gathering;
                let common = Arc::clone(&self.common);
                common.arrive_at(&common.announced);
                self.advance_phase();
            }
            Phase::Gathering if self.common.all_at(&self.common.announced) => self.open(),
            Phase::Draining { .. } => self.advance_drain(),
            _ => {}
        }
    }

    /// All filters of the others are in our queues, and what their publishers may repeat: take them in, then let clients
    /// come.
    fn open(&mut self) {
        for from in self.mesh.peers() {
            while let Some(message) = self.mesh.receive(from) {
                self.handle(Event::Mesh { from, message });
                self.drain_effects();
            }
        }
        if let Some(log) = &mut self.log {
            log.recovered();
        }
        self.retire_if_due();
        self.watch_disk(); // before anybody publishes
        self.schedule_housekeeping();
        self.settle();
        if self.is_stopped() {
            return; // the log can't be written
        }
        self.phase = Phase::Serving;
        if let Err(error) = self.open_doors() {
            self.poison(format!("can't listen: {error}"));
            return;
        }
        if let Some(opened) = self.opened.take() {
            // Nobody waiting means that the start was given up; then an order to stop follows.
            let _ = opened.try_send(self.id);
        }
    }

    fn open_doors(&mut self) -> std::io::Result<()> {
        self.ramp = Ramp::new(self.live.config.restart.accept_per_second, self.now.mono);
        for (token, door) in (0..DOORS_MAX).map(|door| TOKEN_DOOR - door).zip(&self.doors) {
            listener::open(&door.listener, socket_options(&self.live.config))?;
            self.poller.add_read(&door.listener, token)?;
        }
        Ok(())
    }
}

fn socket_options(config: &Config) -> SocketOptions {
    SocketOptions { not_sent_bytes_max: config.not_sent_bytes_max, stall_timeout: config.stall_timeout }
}

fn take_in_hand(message: &MeshMessage) {
    let message = match message {
        MeshMessage::Forward { message, .. }
        | MeshMessage::ShareForward { message, .. }
        | MeshMessage::Retain { message, .. } => message,
        MeshMessage::Keyed { publish, .. } => &publish.message,
        _ => return,
    };
    crate::crash::take_forward_in_hand(message);
    crate::fault::planted("panic-forward", message.topic.as_str().as_bytes());
}
