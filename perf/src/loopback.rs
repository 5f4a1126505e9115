//! What the kernel takes for the bytes alone: a sender that writes bursts to sockets of the loopback, and a reader that
//! throws them away. The floor of every figure of CPU for each message.
//!
//! ```text
//! sender (one core) ── a write of burst × bytes to each socket in turn ──► reader (the other core)
//!        ◄── parks while more than a window is unread ──┘
//! ```
//!
//! The sender's time holds the kernel's work for the receiver, too: on the loopback a segment is taken in by whoever sends it.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use crate::clock::{self, seconds};
use crate::probe;

/// Most unread bytes of one socket: what a kernel holds without asking for more memory.
const UNREAD_MAX: u64 = 64 * 1024;
/// How long the sender waits before it looks whether the reader is still there.
const PATIENCE: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 256 * 1024;

/// Measure what the kernel takes for bursts over the loopback, without any broker.
#[derive(Args, Clone, Debug)]
pub struct LoopbackOptions {
    /// Sockets; each gets a burst in turn.
    #[arg(long, default_value_t = 1)]
    pub sockets: usize,
    /// Bytes of a message on the wire.
    #[arg(long, default_value_t = 80)]
    pub bytes: usize,
    /// Messages of one write.
    #[arg(long, default_value_t = 1)]
    pub burst: usize,
    /// Time of the run.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Core of the sender.
    #[arg(long, default_value_t = 0)]
    pub sender_cpu: usize,
    /// Core of the reader.
    #[arg(long, default_value_t = 1)]
    pub reader_cpu: usize,
    /// Also write the findings here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl LoopbackOptions {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.sockets == 0 || self.bytes == 0 || self.burst == 0 {
            bail!("--sockets, --bytes and --burst must be at least 1");
        }
        if self.bytes.checked_mul(self.burst).is_none_or(|burst| burst as u64 > UNREAD_MAX) {
            bail!("a burst of {} × {} bytes is more than {UNREAD_MAX}", self.burst, self.bytes);
        }
        if !(self.seconds > 0.0 && self.seconds <= 1e6) {
            bail!("--seconds {} is outside 0..=1000000", self.seconds);
        }
        Ok(())
    }
}

/// Findings.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoopbackReport {
    /// Sockets.
    pub sockets: usize,
    /// Bytes of a message.
    pub bytes: usize,
    /// Messages of a write.
    pub burst: usize,
    /// Messages per second.
    pub messages_per_second: f64,
    /// CPU of the sender for each message, microseconds.
    pub send_us_per_message: f64,
    /// CPU of the sender for each write, microseconds.
    pub send_us_per_write: f64,
    /// CPU of the reader for each message, microseconds.
    pub read_us_per_message: f64,
}

/// Runs the tool.
pub fn run(options: &LoopbackOptions) -> Result<LoopbackReport> {
    if 2 * options.sockets as u64 + 16 > probe::raise_file_limit() {
        bail!("{} sockets need more files than are allowed; raise the hard limit", options.sockets);
    }
    // Both cores are there, before anybody waits for the other.
    pin(options.reader_cpu)?;
    pin(options.sender_cpu)?;
    let (senders, readers) = pairs(options.sockets)?;
    let read = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (read, done, cpu, sender) =
            (Arc::clone(&read), Arc::clone(&done), options.reader_cpu, std::thread::current());
        std::thread::spawn(move || read_all(readers, cpu, &read, &done, &sender))
    };
    let sent = send(senders, options, &read, &reader);
    done.store(true, Ordering::Release);
    let read_cpu = reader.join().expect("a panic of the reader is a bug, and has been printed")?;
    let (sent, time, cpu) = sent?;
    let messages = (sent * options.burst as u64) as f64;
    Ok(LoopbackReport {
        sockets: options.sockets,
        bytes: options.bytes,
        burst: options.burst,
        messages_per_second: messages / (time as f64 / 1e9),
        send_us_per_message: cpu as f64 / 1e3 / messages,
        send_us_per_write: cpu as f64 / 1e3 / sent as f64,
        read_us_per_message: read_cpu as f64 / 1e3 / messages,
    })
}

fn pairs(count: usize) -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on the loopback")?;
    let address = listener.local_addr()?;
    let (mut senders, mut readers) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let sender = TcpStream::connect(address).context("cannot connect over the loopback")?;
        sender.set_nodelay(true)?;
        senders.push(sender);
        readers.push(listener.accept()?.0);
    }
    Ok((senders, readers))
}

/// Writes in turn; the number of writes, the time, and the CPU time.
fn send(
    mut senders: Vec<TcpStream>,
    options: &LoopbackOptions,
    read: &AtomicU64,
    reader: &JoinHandle<Result<u64>>,
) -> Result<(u64, u64, u64)> {
    let burst = vec![0xA5; options.bytes * options.burst];
    let unread_max = UNREAD_MAX.min(8 * burst.len() as u64) * senders.len() as u64;
    let (start, cpu) = (clock::now(), clock::thread_cpu());
    let end = start + seconds(options.seconds);
    let (mut writes, mut bytes) = (0, 0);
    while clock::now() < end {
        for sender in &mut senders {
            sender.write_all(&burst).context("cannot write")?;
        }
        writes += senders.len() as u64;
        bytes += (senders.len() * burst.len()) as u64;
        while bytes - read.load(Ordering::Acquire) > unread_max / 2 {
            if reader.is_finished() {
                bail!("the reader has failed");
            }
            std::thread::park_timeout(PATIENCE); // the reader unparks after each of its turns
        }
    }
    Ok((writes, clock::now() - start, clock::thread_cpu() - cpu))
}

/// Reads until it is done; the CPU time.
fn read_all(
    mut readers: Vec<TcpStream>,
    cpu: usize,
    read: &AtomicU64,
    done: &AtomicBool,
    sender: &Thread,
) -> Result<u64> {
    pin(cpu)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, reader) in readers.iter().enumerate() {
        epoll::add(&epoll, reader, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(1024);
    let mut room = vec![0; READ_BYTES];
    let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let start = clock::thread_cpu();
    while !done.load(Ordering::Acquire) {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
        let mut bytes = 0;
        for event in &events {
            bytes += readers[event.data.u64() as usize].read(&mut room).context("cannot read")?;
        }
        read.fetch_add(bytes as u64, Ordering::Release);
        sender.unpark();
    }
    Ok(clock::thread_cpu() - start)
}

fn pin(cpu: usize) -> Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        bail!("there is no core {cpu}");
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {cpu}"))
}

impl fmt::Display for LoopbackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "loopback, {} sockets, bursts of {} × {} bytes: {:.0} messages/s",
            self.sockets, self.burst, self.bytes, self.messages_per_second
        )?;
        writeln!(
            f,
            "  send {:.2} µs CPU per message, {:.2} per write; read {:.2} per message",
            self.send_us_per_message, self.send_us_per_write, self.read_us_per_message
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(sockets: usize, bytes: usize, burst: usize) -> LoopbackOptions {
        LoopbackOptions { sockets, bytes, burst, seconds: 0.1, sender_cpu: 0, reader_cpu: 0, json: None }
    }

    #[test]
    fn figures_belong_together() {
        let report = run(&options(4, 80, 64)).unwrap();
        assert!((report.send_us_per_write / report.send_us_per_message - 64.0).abs() < 1e-6, "{report}");
        assert!(report.messages_per_second > 0.0 && report.read_us_per_message > 0.0, "{report}");
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        run(&LoopbackOptions { reader_cpu: 1_000_000, ..options(1, 80, 1) }).expect_err("no such core");
    }

    #[test]
    fn what_a_kernel_would_not_hold_is_refused() {
        options(1, 80, 1).check().unwrap();
        options(0, 80, 1).check().expect_err("no socket");
        options(1, 80_000, 1).check().expect_err("one write would wait for the reader");
        options(1, usize::MAX, 2).check().expect_err("no such burst");
    }
}
