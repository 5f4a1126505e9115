//! The wheel, the broker's deadlines, and the one kernel timer that stands for both.

use postroad_base::ConnectionId;
use postroad_broker::api::Event;

use super::{DOORS_MAX, Shard, TOKEN_ALARM, TOKEN_DOOR, TOKEN_DOORBELL};

/// Owner of the sweep's entry in the wheel.
const SWEEP: u64 = TOKEN_ALARM;
/// Owner of the housekeeping's entry.
const HOUSEKEEPING: u64 = TOKEN_DOORBELL;
/// How long an empty buffer is kept after its last use.
const SWEEP_MILLIS: u64 = 500;
/// How often the shard looks after its log and its disk.
const HOUSEKEEPING_MILLIS: u64 = 1_000;

impl Shard {
    /// Makes sure that the wheel will look at the connection in time.
    pub(super) fn schedule(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let Some(due) = connection.next_deadline() else { return };
        if due < connection.timer_at {
            connection.timer_at = due;
            self.wheel.insert(due, id.0);
        }
    }

    pub(super) fn schedule_sweep(&mut self) {
        self.wheel.insert(self.now.mono.after(SWEEP_MILLIS), SWEEP);
    }

    pub(crate) fn schedule_housekeeping(&mut self) {
        self.wheel.insert(self.now.mono.after(HOUSEKEEPING_MILLIS), HOUSEKEEPING);
    }

    /// Fires what is due.
    pub(super) fn expire(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.expire(self.now.mono, &mut fired);
        for owner in fired.drain(..) {
            self.fire(owner);
        }
        self.fired = fired;
        if self.broker.next_deadline().is_some_and(|due| due <= self.now.mono) {
            self.handle(Event::Tick);
        }
    }

    fn fire(&mut self, owner: u64) {
        match owner {
            SWEEP => self.sweep(),
            HOUSEKEEPING => {
                self.housekeeping();
                self.publish_sys_if_due();
                self.judge_plugins();
                self.schedule_housekeeping();
            }
            door if door > TOKEN_DOOR - DOORS_MAX => {
                self.accept_again(usize::try_from(TOKEN_DOOR - door).expect("below 1,024"));
            }
            owner => {
                let id = ConnectionId(owner);
                let now = self.now.mono;
                let Some(connection) = self.connection(id).filter(|connection| connection.timer_at <= now) else {
                    return; // gone, or an earlier entry has taken its place
                };
                connection.timer_at = postroad_base::MonoMillis(u64::MAX);
                self.deadline_passed(id);
            }
        }
    }

    /// Sets the alarm to the earliest of all deadlines.
    pub(super) fn set_alarm(&mut self) {
        let due = [self.wheel.next(), self.broker.next_deadline()].into_iter().flatten().min();
        let Some(due) = due else { return };
        if let Err(error) = self.alarm.set(due.0, self.now.mono.0) {
            // The arguments are ours and in range.
            self.poison(format!("timerfd_settime: {error}"));
        }
    }
}
