//! Threads that hash passwords, so that no shard waits 29 ms for one.
//!
//! Bounded twice: threads (19 MiB and a core each while they hash) and checks that wait. What does not fit
//! is refused with `ServerBusy`: a crowd that reconnects backs off instead of piling up.

use std::io;
use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use postroad_base::ReasonCode;
use postroad_broker::api::Principal;

use super::PasswordCheck;

/// What came of a check; `None` if it panicked.
pub type CheckOutcome = Option<Result<Principal, ReasonCode>>;

/// How large the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Threads.
    pub threads: NonZeroUsize,
    /// Checks that may wait for a thread.
    pub waiting_max: usize,
}

impl Default for PoolOptions {
    /// A quarter of the cores: hashing must not starve the shards. 1,024 waiting: some 30 s of one thread.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = NonZeroUsize::new((cores / 4).clamp(1, 8)).expect("clamped to 1 at least");
        Self { threads, waiting_max: 1024 }
    }
}

/// The running threads. Dropping it answers what waits, then ends them.
#[derive(Debug)]
pub struct Pool {
    checks: Option<flume::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    check: Box<PasswordCheck>,
    answer: Box<dyn FnOnce(CheckOutcome) + Send>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(options: PoolOptions) -> io::Result<Self> {
        let (checks, waiting) = flume::bounded::<Job>(options.waiting_max);
        let mut threads = Vec::with_capacity(options.threads.get());
        for index in 0..options.threads.get() {
            let waiting = waiting.clone();
            let thread = std::thread::Builder::new().name(format!("auth-{index}"));
            threads.push(thread.spawn(move || waiting.iter().for_each(run))?);
        }
        Ok(Self { checks: Some(checks), threads })
    }

    /// Queues a check. `answer` is called once, on a thread of the pool.
    ///
    /// # Errors
    /// [`ReasonCode::ServerBusy`] when too many wait already.
    pub fn submit(
        &self,
        check: Box<PasswordCheck>,
        answer: impl FnOnce(CheckOutcome) + Send + 'static,
    ) -> Result<(), ReasonCode> {
        let checks = self.checks.as_ref().ok_or(ReasonCode::ServerShuttingDown)?;
        checks.try_send(Job { check, answer: Box::new(answer) }).map_err(|_| ReasonCode::ServerBusy)
    }
}

/// A check that panics has touched nothing shared: only its client is refused.
fn run(job: Job) {
    let outcome = crate::crash::guarded(|| {
        crate::fault::planted("panic-hash", &job.check.password);
        job.check.run()
    });
    if outcome.is_none() {
        tracing::error!("a password check panicked: its client is refused");
    }
    (job.answer)(outcome);
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.checks = None;
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::password::{StoredPassword, cheap_hash};
    use super::*;

    fn check(password: &str) -> Box<PasswordCheck> {
        Box::new(PasswordCheck {
            stored: Some(StoredPassword::parse(&cheap_hash("secret")).expect("valid")),
            password: password.into(),
            answer: Ok(Principal::default()),
        })
    }

    fn pool(waiting_max: usize) -> Pool {
        Pool::start(PoolOptions { threads: NonZeroUsize::MIN, waiting_max }).expect("a thread")
    }

    fn submit(pool: &Pool, password: &str) -> Result<flume::Receiver<CheckOutcome>, ReasonCode> {
        let (answer, answered) = flume::bounded(1);
        pool.submit(check(password), move |outcome| answer.send(outcome).expect("the test waits"))?;
        Ok(answered)
    }

    #[test]
    fn answers_come_to_who_asked() {
        let pool = pool(8);
        let right = submit(&pool, "secret").expect("room");
        let wrong = submit(&pool, "guess").expect("room");
        assert_eq!(right.recv(), Ok(Some(Ok(Principal::default()))));
        assert_eq!(wrong.recv(), Ok(Some(Err(ReasonCode::BadUserNameOrPassword))));
    }

    #[test]
    fn what_waits_is_answered_before_the_threads_end() {
        let pool = pool(64);
        let answers: Vec<_> = (0..20).map(|_| submit(&pool, "secret").expect("room")).collect();
        drop(pool);
        assert!(answers.iter().all(|answer| answer.try_recv() == Ok(Some(Ok(Principal::default())))));
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        // No thread takes anything from this pool: its queue is exactly as full as the test makes it.
        let (checks, _untouched) = flume::bounded(1);
        let pool = Pool { checks: Some(checks), threads: Vec::new() };
        assert!(submit(&pool, "secret").is_ok());
        assert_eq!(submit(&pool, "secret").err(), Some(ReasonCode::ServerBusy));
    }
}
