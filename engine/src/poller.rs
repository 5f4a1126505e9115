//! Waiting for many descriptors at once: one epoll instance per shard.
//!
//! ```text
//! sockets, doorbell, timer, the log's ring ──edge──► epoll ──► the shard's loop
//! ```
//! Why not one task and one io_uring poll per connection: an idle connection then owns a task and a
//! registration (0.8 KB), each readiness costs its own submission, completion and wake-up, and nothing
//! says which connections were readable in the same turn. Here an idle connection costs user space
//! nothing, and one batch is one turn: read all, then write all.
//!
//! Registrations are edge-triggered and for both directions, made once: whoever stops reading before the
//! kernel says "would block" has to come back by itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// What happened to a descriptor, by the token it was registered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    /// Readable, or closed by the peer, or broken: reading says which.
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// The peer has closed its side, or the connection is broken.
    pub(crate) hangup: bool,
}

/// The descriptors of one shard.
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Found by a wait and not collected yet.
    events: Vec<epoll::Event>,
}

const BATCH_MAX: usize = 1024;

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(BATCH_MAX) })
    }

    /// Watches `fd` in both directions until it is closed.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Watches `fd` for reading only.
    pub(crate) fn add_read(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Stops watching `fd`, which goes on living elsewhere.
    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until something is ready, for the next [`Self::collect`]; a signal may end it before.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.look(None)
    }

    /// What the last wait found, else what is ready now, without waiting, appended to `ready`.
    pub(crate) fn collect(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        if self.events.is_empty() {
            self.look(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let broken = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
            Ready {
                token: event.data.u64(),
                read: flags.intersects(epoll::EventFlags::IN | broken),
                write: flags.intersects(epoll::EventFlags::OUT),
                hangup: flags.intersects(broken),
            }
        }));
        self.events.clear();
        Ok(())
    }

    fn look(&mut self, wait: Option<&Timespec>) -> io::Result<()> {
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), wait) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Wakes a shard from any thread. Ringing a shard that is awake costs one atomic operation, no call.
///
/// Protocol: the shard calls [`Doorbell::will_sleep`], looks into its queues once more, and only then
/// waits. Whoever puts something into a queue rings after that. Both sides use sequential consistency,
/// so one of them sees the other.
#[derive(Clone, Debug)]
pub(crate) struct Doorbell {
    inner: Arc<DoorbellInner>,
}

#[derive(Debug)]
struct DoorbellInner {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { inner: Arc::new(DoorbellInner { event, asleep: AtomicBool::new(false) }) })
    }

    /// Something is in a queue of the shard.
    pub(crate) fn ring(&self) {
        if self.inner.asleep.load(Ordering::SeqCst) && self.inner.asleep.swap(false, Ordering::SeqCst) {
            self.ring_always();
        }
    }

    /// Rings whether the shard sleeps or not: it wants to find itself woken.
    pub(crate) fn ring_always(&self) {
        // Registered edge-triggered and never read: each write is a new edge. The counter would be full
        // after 2^64 - 2 rings; an error here can only be that.
        let _ = rustix::io::write(&self.inner.event, &1_u64.to_ne_bytes());
    }

    /// The shard is going to wait unless its queues have something.
    pub(crate) fn will_sleep(&self) {
        self.inner.asleep.store(true, Ordering::SeqCst);
    }

    /// The shard is awake: no need to ring.
    pub(crate) fn awake(&self) {
        self.inner.asleep.store(false, Ordering::SeqCst);
    }

    /// What to watch.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.inner.event
    }
}

/// One timer of the kernel.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    /// Milliseconds on the shard's clock at which it is set to fire; `u64::MAX` if it is not set.
    armed_for: u64,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer, armed_for: u64::MAX })
    }

    /// Fires at `due` at the latest. A later due time than the one set before leaves that: it fires once
    /// for nothing, which is cheaper than a call for each change.
    pub(crate) fn set(&mut self, due_millis: u64, now_millis: u64) -> io::Result<()> {
        if due_millis >= self.armed_for {
            return Ok(());
        }
        let wait = due_millis.saturating_sub(now_millis).clamp(1, 86_400_000);
        let it_value = Timespec {
            tv_sec: i64::try_from(wait / 1000).expect("at most a day"),
            tv_nsec: i64::try_from(wait % 1000 * 1_000_000).expect("below a second"),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        self.armed_for = due_millis;
        Ok(())
    }

    /// It fired: it is no longer set.
    pub(crate) fn fired(&mut self) {
        self.armed_for = u64::MAX;
    }

    /// What to watch.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.timer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(poller: &mut Poller) -> Vec<Ready> {
        let mut ready = Vec::new();
        poller.collect(&mut ready).expect("epoll works");
        ready
    }

    /// The last shard to announce its filters rang the others while one of them was between its look at the counter and
    /// `will_sleep`: that ring was skipped, and the start hung.
    #[test]
    fn who_is_on_the_way_to_sleep_hears_the_bell_that_always_rings() {
        let mut poller = Poller::new().expect("epoll");
        let bell = Doorbell::new().expect("eventfd");
        poller.add_read(bell.descriptor(), 9).expect("added");
        bell.awake();
        bell.ring_always();
        bell.will_sleep();
        assert_eq!(collect(&mut poller), [Ready { token: 9, read: true, write: false, hangup: false }]);
    }

    #[test]
    fn each_ring_of_a_sleeper_is_a_new_edge() {
        let mut poller = Poller::new().expect("epoll");
        let bell = Doorbell::new().expect("eventfd");
        poller.add_read(bell.descriptor(), 9).expect("added");
        bell.ring();
        assert_eq!(collect(&mut poller), [], "it was awake: no call was made");
        for _ in 0..3 {
            bell.will_sleep();
            bell.ring();
            bell.ring();
            assert_eq!(collect(&mut poller), [Ready { token: 9, read: true, write: false, hangup: false }]);
            assert_eq!(collect(&mut poller), []);
        }
    }
}
