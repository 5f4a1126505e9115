//! `postroad sub`.
//!
//! A message is printed and flushed before it is acknowledged: what a script has not seen comes again. QoS 2:
//! printed once per packet identifier, until PUBREL frees it.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postroad_base::{Qos, ReasonCode, SubscriptionIdentifier, SubscriptionOptions, Tag, TopicFilter};
use postroad_protocol::mqtt::{Ack, Packet, Subscribe, UserProperties};

use super::client::{ANSWER_TIMEOUT, Client, Incoming, Message, refuse};
use super::format::Format;
use crate::cli::SubArgs;

/// How often a signal is looked for.
const TICK: Duration = Duration::from_millis(100);
/// Time for the last QoS 2 handshakes after the last message.
const GOODBYE: Duration = Duration::from_secs(2);

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
    for filter in &args.topic {
        TopicFilter::new(filter.as_str()).with_context(|| format!("bad topic filter {filter:?}"))?;
    }
    args.connection.session_expiry = args.connection.session_expiry.or(args.expiry);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let format = Format::new(args)?;
    let mut client = Client::connect(&args.connection)?;
    let tag = client.tag();
    client.send(&Packet::Subscribe(request(args, tag)))?;
    let left = args.count.unwrap_or(u64::MAX);
    let timeout = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let no_retained = args.no_retained;
    let mut subscriber = Subscriber { client, format, received: HashSet::new(), left, granted: false, no_retained };
    let end = subscriber.run(timeout, &stop)?;
    subscriber.finish()?;
    subscriber.client.disconnect();
    Ok(end)
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

struct Subscriber {
    client: Client,
    format: Format,
    /// QoS 2 identifiers that are printed and not released yet.
    received: HashSet<Tag>,
    left: u64,
    granted: bool,
    no_retained: bool,
}

impl Subscriber {
    fn run(&mut self, timeout: Option<Instant>, stop: &AtomicBool) -> Result<End> {
        let answer_due = Instant::now() + ANSWER_TIMEOUT;
        while self.left > 0 && !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if timeout.is_some_and(|timeout| now >= timeout) {
                return Ok(End::Timeout);
            }
            if !self.granted && now >= answer_due {
                bail!("no SUBACK came within 30 s");
            }
            let tick = timeout.map_or(now + TICK, |timeout| timeout.min(now + TICK));
            if let Some(incoming) = self.client.next(tick)?
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
        let skipped = self.no_retained && message.retain;
        if !repeated && !skipped {
            if !print(&self.format.render(message))? {
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

/// Whether somebody still reads.
fn print(bytes: &[u8]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("can't write to standard output"),
    }
}
