//! Everything that one can do with messages, all at once, over a daemon that dies again and again, with an exact oracle ([`ledger`]).
//!
//! ```text
//! applications: publish with wishes, under keys that are repeated, for later ──► devices (prompt, comes and goes, refuses, pulls, stays away)
//!                                                                        └────► a consumer group: take, acknowledge, refuse, give up
//! operator: requeue with another payload, to a topic; drop, park, unpark, lease, import ──► what devices and consumers refused
//! support: acknowledges in the place of the device that stays away
//! ```
//! Every message has a name of its own, which is its payload; a requeue and an import get a new one. So what is met anywhere is known to be
//! one certain publish, and what was asked for and not answered is found done wholly or not at all.

mod applications;
mod devices;
pub mod ledger;
mod operator;

use std::io;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::daemon::{Daemon, Endpoint};
use crate::http;
use crate::random::Random;
use ledger::Ledger;

/// What the daemon is started with: letters come about by attempts, too; a log so small that much moves to the old generation.
pub const SETTINGS: [&str; 9] = [
    "shards=2",
    "log.segment_bytes=256KiB",
    "log.young_bytes=1MiB",
    "log.young_age=1s",
    "retry.max_attempts=5",
    "retry.ack_timeout_min=100ms",
    "groups.delay=0s",
    "dead_letters.requeues_max=1000",
    "trace.sample=1000000",
];

/// The consumer group.
const GROUP: &str = "work";
/// The device that never comes.
const AWAY: usize = 4;
/// How long one round, and the rest at the end, may take; a stuck test fails instead of hanging.
const ROUND_MAX: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(2);

/// What all threads share.
pub struct Shared {
    mqtt: Endpoint,
    http: Endpoint,
    /// Odd while the daemon is down.
    life: AtomicU64,
    /// What was done so far, by kind of doer.
    done: [AtomicU64; Doer::ALL.len()],
    /// A refusal for want of room is no failure: the disk may be full.
    may_be_full: bool,
    /// Nobody begins anything new, and all that comes is taken.
    settling: AtomicBool,
    over: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// Whose deeds are counted, so that a kill can be put into the middle of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doer {
    Publisher,
    Device,
    Consumer,
    Operator,
}

impl Doer {
    const ALL: [Self; 4] = [Self::Publisher, Self::Device, Self::Consumer, Self::Operator];
}

impl Shared {
    fn new(daemon: &Daemon, may_be_full: bool) -> Self {
        Self {
            mqtt: daemon.endpoint(),
            http: daemon.http_endpoint(),
            life: AtomicU64::new(0),
            done: Default::default(),
            may_be_full,
            settling: AtomicBool::new(false),
            over: AtomicBool::new(false),
            ledger: Mutex::default(),
        }
    }

    /// The oracle. After a failure in one thread the others go on, so that they end.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Acquire)
    }

    /// The life that the daemon lives; waits for it. Nobody lives it any more when the test is over.
    fn living(&self) -> u64 {
        loop {
            let life = self.life.load(Ordering::Acquire);
            if life.is_multiple_of(2) || self.is_over() {
                return life;
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// Odd while the daemon is down.
    fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// Somebody is about to do something.
    fn about_to(&self, doer: Doer) {
        self.done[doer as usize].fetch_add(1, Ordering::AcqRel);
    }

    fn count(&self, doer: Doer) -> u64 {
        self.done[doer as usize].load(Ordering::Acquire)
    }

    /// Asks the API; `None`: nobody knows whether it was done.
    fn ask(&self, request: &str, body: &Value) -> Option<(u16, Value)> {
        let answer = self.try_ask(request, body).ok()?;
        // 504 says that, too.
        (answer.0 != 504).then_some(answer)
    }

    fn try_ask(&self, request: &str, body: &Value) -> io::Result<(u16, Value)> {
        self.living();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len().to_string();
        let headers = [("Content-Type", "application/json"), ("Content-Length", &*length)];
        // The helper gives the length of what is posted.
        let headers = if request.starts_with("PUT") { &headers[..] } else { &headers[..1] };
        let answer = http::request(self.http.address(), request, headers, body.as_bytes())?;
        let body = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
        Ok((answer.code, body))
    }

    /// Whether an answer is one that says why nothing was done: there is no room, or the server begins or ends.
    fn is_refusal(&self, code: u16, body: &Value) -> bool {
        let is_clear = body["reason"].is_string() && body["detail"].is_string();
        let is_full = self.may_be_full && matches!(code, 429 | 507) && body["reason"] == "quota_exceeded";
        let is_busy = code == 503 && body["reason"] == "busy";
        is_clear && (is_full || is_busy)
    }
}

/// Whether a random test of `permille` of a thousand is passed.
fn chance(random: &mut Random, permille: u64) -> bool {
    random.below(1_000) < permille
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    u64::try_from(now.as_millis()).expect("it fits for long")
}

fn device_name(device: usize) -> String {
    format!("device-{device}")
}

/// What the test does to the daemon in the midst of all that.
pub struct Siege<'a> {
    shared: &'a Shared,
    random: Random,
    /// Letters that it has brought in itself.
    imports: usize,
}

impl Siege<'_> {
    /// Waits until somebody, by chance a publisher, a device, a consumer or the operator, is about to do something, after so many others.
    pub fn wait_for_deeds(&mut self, most: u64) {
        let doer = Doer::ALL[self.random.below(Doer::ALL.len() as u64) as usize];
        // An operator has something to do now and then, the others always.
        let few = if doer == Doer::Operator { 1 + self.random.below(8) } else { 1 + self.random.below(most) };
        self.wait_for(doer, few);
    }

    /// Waits until publishers were about to publish so many more times.
    pub fn wait_for_publishes(&self, count: u64) {
        self.wait_for(Doer::Publisher, count);
    }

    fn wait_for(&self, doer: Doer, count: u64) {
        let deadline = Instant::now() + ROUND_MAX;
        let target = self.shared.count(doer) + count;
        while self.shared.count(doer) < target {
            assert!(!self.shared.is_over(), "a thread has failed");
            assert!(Instant::now() < deadline, "{doer:?} has not done {count} things within {ROUND_MAX:?}");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// How often something was counted so far, as the ledger's report names it.
    pub fn counted(&self, what: &str) -> u64 {
        assert!(!self.shared.is_over(), "a thread has failed");
        self.shared.ledger().counted(what)
    }

    /// Tries to bring in a letter; whether the answer is that there is no room.
    pub fn is_import_refused(&mut self) -> bool {
        self.imports += 1;
        operator::is_import_refused(self.shared, &format!("n-{}", self.imports))
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait_for_end(&mut self, daemon: &mut Daemon) -> ExitStatus {
        let status = daemon.wait_for_end();
        self.shared.life.fetch_add(1, Ordering::AcqRel);
        status
    }

    /// Kills the daemon.
    pub fn kill(&mut self, daemon: &mut Daemon) {
        self.shared.life.fetch_add(1, Ordering::AcqRel);
        daemon.kill();
    }

    /// Starts it again.
    pub fn restart(&mut self, daemon: &mut Daemon) {
        daemon.restart();
        self.shared.life.fetch_add(1, Ordering::AcqRel);
    }
}

/// Sets `over` at its end, also when a thread fails: else the others would wait for ever.
struct OverAtEnd<'a>(&'a Shared);

impl Drop for OverAtEnd<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// Lets everybody loose on a running daemon, whose lives `besiege` ends and begins. Then all comes to rest and is judged.
pub fn run(
    daemon: &mut Daemon,
    may_be_full: bool,
    random: Random,
    besiege: impl FnOnce(&mut Daemon, &mut Siege<'_>),
) -> Ledger {
    let shared = Shared::new(daemon, may_be_full);
    prepare(&shared);
    let mut seeds = random.clone();
    thread::scope(|scope| {
        let _over = OverAtEnd(&shared);
        let mut seed = || Random::from_seed(seeds.number());
        let mut threads = Vec::new();
        for device in 0..AWAY {
            let (shared, random) = (&shared, seed());
            threads.push(scope.spawn(move || guarded(shared, |shared| devices::live(shared, device, random))));
        }
        for doing in [
            applications::publish,
            applications::publish_under_keys,
            applications::consume,
            applications::support,
            operator::work,
        ] {
            let (shared, random) = (&shared, seed());
            threads.push(scope.spawn(move || guarded(shared, |shared| doing(shared, random))));
        }
        besiege(daemon, &mut Siege { shared: &shared, random, imports: 0 });
        shared.settling.store(true, Ordering::Release);
        wait_for_rest(daemon, &shared);
        shared.over.store(true, Ordering::Release);
        threads.into_iter().for_each(|thread| thread.join().expect("no thread fails"));
    });
    let letters = operator::all_letters(&shared);
    let mut ledger = shared.ledger();
    letters.iter().for_each(|letter| ledger.letter_seen(letter));
    ledger.judge(&letters);
    applications::judge_receipts(&shared, &ledger);
    std::mem::take(&mut ledger)
}

/// A thread that fails ends the others.
fn guarded(shared: &Shared, doing: impl FnOnce(&Shared)) {
    struct Watch<'a>(&'a Shared);
    impl Drop for Watch<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.over.store(true, Ordering::Release);
            }
        }
    }
    let _watch = Watch(shared);
    doing(shared);
}

/// Subscriptions are there before the first publish.
fn prepare(shared: &Shared) {
    (0..=AWAY).for_each(|device| devices::subscribe(shared, device));
    let filters = serde_json::json!({ "filters": ["g/#"] });
    let (code, answer) = shared.ask(&format!("PUT /v1/groups/{GROUP}"), &filters).expect("nothing was killed yet");
    assert_eq!(code, 201, "{answer}");
}

/// What is left to do, by who has to do it; none of it knows when it is asked in the midst of a restart.
fn left(daemon: &Daemon, shared: &Shared) -> Vec<(String, Option<u64>)> {
    let ask = |path: String| shared.try_ask(&format!("GET {path}"), &Value::Null).ok().map(|(_, report)| report);
    let device = |device| {
        let name = device_name(device);
        let backlog = ask(format!("/v1/clients/{name}")).and_then(|report| report["backlog"].as_u64());
        (name, backlog)
    };
    let group = ask(format!("/v1/groups/{GROUP}"));
    let group = group.and_then(|report| Some(report["waiting"].as_u64()? + report["leased"].as_u64()?));
    let scheduled = ["postroad_scheduled_messages", "postroad_scheduled_under_way_messages"];
    let scheduled: f64 = scheduled.iter().map(|name| daemon.metric(name, "")).sum();
    let others = [("the group".to_owned(), group), ("what is put off".to_owned(), Some(scheduled as u64))];
    (0..=AWAY).map(device).chain(others).collect()
}

/// Everything that was put off has come, and nobody has anything left to do. After many lives much waits.
fn wait_for_rest(daemon: &Daemon, shared: &Shared) {
    let deadline = Instant::now() + REST_MAX;
    loop {
        assert!(!shared.is_over(), "a thread has failed");
        let left = left(daemon, shared);
        if left.iter().all(|(_, count)| *count == Some(0)) {
            return;
        }
        assert!(Instant::now() < deadline, "there is no rest within {REST_MAX:?}: {left:?}");
        thread::park_timeout(PAUSE * 10);
    }
}
