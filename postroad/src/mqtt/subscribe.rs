//! `postroad sub`.
//!
//! A message is printed and flushed before it is acknowledged: what a script has not seen comes again. QoS 2:
//! printed once per packet identifier, until PUBREL frees it. A connection that is lost is made again, every
//! second until it works; one that the server ends on purpose is an error.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postroad_base::{Qos, ReasonCode, SubscriptionIdentifier, SubscriptionOptions, Tag, TopicFilter};
use postroad_protocol::mqtt::{Ack, Packet, Subscribe, UserProperties};

use super::client::{ANSWER_TIMEOUT, Client, Incoming, Lost, Message, refuse};
use super::format::Format;
use crate::cli::SubArgs;

/// How often a signal is looked for.
const TICK: Duration = Duration::from_millis(100);
/// Time for the last QoS 2 handshakes after the last message.
const GOODBYE: Duration = Duration::from_secs(2);

/// Time between two attempts to connect again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// How `sub` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its count is reached, a signal came, or nobody reads what it prints.
    Done,
    /// Its time is over.
    Timeout,
}

/// Runs the command.
pub fn subscribe(args: &mut SubArgs) -> Result<End> {
    let format = Format::new(args)?;
    subscribe_to(
        args,
        Sink { render: Box::new(move |message| format.render(message)), out: Box::new(std::io::stdout()) },
    )
}

/// A message as it is written.
pub type Render = Box<dyn Fn(&Message) -> Vec<u8>>;

/// Where messages go, and as which bytes.
pub struct Sink {
    pub render: Render,
    pub out: Box<dyn Write>,
}

impl Sink {
    /// Whether somebody still reads.
    fn print(&mut self, message: &Message) -> Result<bool> {
        let bytes = (self.render)(message);
        match self.out.write_all(&bytes).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("can't write what came"),
        }
    }
}

/// Subscribes, and gives what comes to a sink.
pub fn subscribe_to(args: &mut SubArgs, sink: Sink) -> Result<End> {
    for filter in &args.topic {
        TopicFilter::new(filter.as_str()).with_context(|| format!("bad topic filter {filter:?}"))?;
    }
    args.connection.session_expiry = args.connection.session_expiry.or(args.expiry);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut subscriber = Subscriber {
        client: Client::connect(&args.connection)?,
        args,
        sink,
        received: HashSet::new(),
        left: args.count.unwrap_or(u64::MAX),
        granted: false,
        limit: Limit { time: args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds)), stop },
    };
    let end = subscriber.run_until_end()?;
    if end == End::Done {
        subscriber.finish()?;
    }
    subscriber.client.disconnect();
    Ok(end)
}

/// What ends the command from outside.
struct Limit {
    time: Option<Instant>,
    stop: Arc<AtomicBool>,
}

impl Limit {
    fn reached(&self) -> Option<End> {
        if self.stop.load(Ordering::Relaxed) {
            return Some(End::Done);
        }
        self.time.filter(|time| Instant::now() >= *time).map(|_| End::Timeout)
    }

    /// When to look again.
    fn tick(&self) -> Instant {
        let tick = Instant::now() + TICK;
        self.time.map_or(tick, |time| time.min(tick))
    }
}

fn request(args: &SubArgs, tag: Tag) -> Subscribe<'_> {
    let options = SubscriptionOptions {
        qos: Qos::from_number(args.qos).expect("the command line allows 0 to 2"),
        no_local: args.no_local,
        ..SubscriptionOptions::default()
    };
    Subscribe {
        tag,
        identifier: args.subscription_identifier.and_then(SubscriptionIdentifier::new),
        user_properties: UserProperties::from_pairs(&[]),
        filters: args.topic.iter().map(|filter| (filter.as_str(), options)).collect(),
    }
}

struct Subscriber<'a> {
    client: Client,
    args: &'a SubArgs,
    sink: Sink,
    /// QoS 2 identifiers that are printed and not released yet.
    received: HashSet<Tag>,
    left: u64,
    granted: bool,
    limit: Limit,
}

impl Subscriber<'_> {
    fn run_until_end(&mut self) -> Result<End> {
        loop {
            let error = match self.run() {
                Ok(end) => return Ok(end),
                Err(error) => error,
            };
            if !error.is::<Lost>() {
                return Err(error);
            }
            eprintln!("postroad: {error:#}; connecting again");
            if let Some(end) = self.reconnect() {
                return Ok(end);
            }
        }
    }

    /// Tries until it works, or until the command ends.
    fn reconnect(&mut self) -> Option<End> {
        loop {
            let again = Instant::now() + RECONNECT_INTERVAL;
            while Instant::now() < again {
                if let Some(end) = self.limit.reached() {
                    return Some(end);
                }
                std::thread::sleep(TICK);
            }
            if let Ok(client) = Client::connect(&self.args.connection) {
                self.client = client;
                self.granted = false;
                if !self.args.connection.persistent {
                    self.received.clear();
                }
                return None;
            }
        }
    }

    fn run(&mut self) -> Result<End> {
        let tag = self.client.tag();
        self.client.send(&Packet::Subscribe(request(self.args, tag)))?;
        let answer_due = Instant::now() + ANSWER_TIMEOUT;
        while self.left > 0 {
            if let Some(end) = self.limit.reached() {
                return Ok(end);
            }
            if !self.granted && Instant::now() >= answer_due {
                bail!("no SUBACK came within 30 s");
            }
            if let Some(incoming) = self.client.next(self.limit.tick())?
                && !self.handle(incoming)?
            {
                break;
            }
        }
        Ok(End::Done)
    }

    /// Whether to go on: not when nobody reads the output any more.
    fn handle(&mut self, incoming: Incoming) -> Result<bool> {
        match incoming {
            Incoming::Publish(message) => return self.message(&message),
            Incoming::PubRel(tag) => self.release(tag)?,
            Incoming::SubAck(reasons) => {
                self.granted = true;
                reasons.iter().try_for_each(|reason| refuse("the server refused a subscription", *reason, None))?;
            }
            Incoming::Disconnect(ReasonCode::ServerShuttingDown, _) => bail!(Lost("the server stops")),
            Incoming::Disconnect(reason, text) => {
                refuse("the server ended the connection", reason, text.as_deref())?;
                bail!("the server ended the connection");
            }
            Incoming::PubAck(..) | Incoming::PubRec(..) | Incoming::PubComp(..) => {}
        }
        Ok(true)
    }

    fn message(&mut self, message: &Message) -> Result<bool> {
        let repeated = message.qos == Qos::ExactlyOnce && message.tag.is_some_and(|tag| self.received.contains(&tag));
        let skipped = self.args.no_retained && message.retain;
        if !repeated && !skipped {
            if !self.sink.print(message)? {
                return Ok(false);
            }
            self.left -= 1;
        }
        if let Some(tag) = message.tag {
            self.acknowledge(message.qos, tag)?;
        }
        Ok(true)
    }

    fn acknowledge(&mut self, qos: Qos, tag: Tag) -> Result<()> {
        let ack = Ack::new(tag, ReasonCode::Success);
        if qos == Qos::ExactlyOnce {
            self.received.insert(tag);
            return self.client.send(&Packet::PubRec(ack));
        }
        self.client.send(&Packet::PubAck(ack))
    }

    fn release(&mut self, tag: Tag) -> Result<()> {
        let known = self.received.remove(&tag);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.client.send(&Packet::PubComp(Ack::new(tag, reason)))
    }

    /// Ends the open QoS 2 handshakes; new messages stay unacknowledged and come again.
    fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + GOODBYE;
        while !self.received.is_empty() {
            match self.client.next(deadline)? {
                Some(Incoming::PubRel(tag)) => self.release(tag)?,
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }
}
