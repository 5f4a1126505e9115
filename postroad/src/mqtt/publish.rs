//! `postroad pub`.
//!
//! Messages of QoS 1 and 2 are pipelined up to the server's receive maximum; the command ends when every one
//! is acknowledged, with exit code 1 if the server refused one.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postroad_base::{Qos, ReasonCode, Tag, TopicName};
use postroad_protocol::mqtt::{Ack, Forwarded, ForwardedParts, Packet, Publish, PublishProperties, UserProperties};

use super::client::{ANSWER_TIMEOUT, Client, Incoming, refuse};
use crate::cli::{PubArgs, WireVersion};
use crate::payload;

/// How often a quiet standard input lets the connection be looked at.
const TICK: Duration = Duration::from_millis(100);
/// Lines read ahead of the server.
const LINES_MAX: usize = 64;

/// Runs the command.
pub fn publish(args: &PubArgs) -> Result<()> {
    TopicName::new(args.topic.as_str()).with_context(|| format!("bad topic {:?}", args.topic))?;
    let has_wishes = !args.wishes.properties().is_empty();
    if has_wishes && !matches!(args.connection.version, WireVersion::V5) {
        bail!("wishes (--priority and the like) go as user properties, which are of MQTT 5");
    }
    if args.wishes.idempotency_key.is_some() && args.repeat > 1 {
        bail!("--repeat publishes many messages, and --idempotency-key is of one");
    }
    let messages = source(args)?;
    let client = Client::connect(&args.connection)?;
    let mut publisher = Publisher { client, template: Template::new(args), outstanding: HashSet::new(), refused: 0 };
    publisher.all(&messages)?;
    let refused = publisher.refused;
    publisher.client.disconnect();
    if refused > 0 {
        bail!("the server refused {refused} message(s)");
    }
    Ok(())
}

/// The payloads, from a thread where they come from standard input.
fn source(args: &PubArgs) -> Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    if args.payload.lines {
        std::thread::spawn(move || {
            for line in payload::lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        return Ok(receiver);
    }
    let payload = payload::whole(&args.payload)?;
    let repeat = args.repeat;
    std::thread::spawn(move || (0..repeat).try_for_each(|_| sender.send(payload.clone())));
    Ok(receiver)
}

/// What all messages of one run have in common.
struct Template<'a> {
    args: &'a PubArgs,
    qos: Qos,
    properties: Vec<u8>,
}

impl<'a> Template<'a> {
    fn new(args: &'a PubArgs) -> Self {
        let wishes = args.wishes.properties();
        let wished = wishes.iter().map(|(name, value)| (*name, value.as_str()));
        let given = args.user_property.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<_> = given.chain(wished).collect();
        let parts = ForwardedParts {
            payload_format: None,
            content_type: args.content_type.as_deref(),
            response_topic: args.response_topic.as_deref(),
            correlation_data: args.correlation_data.as_deref().map(str::as_bytes),
            user_properties: UserProperties::from_pairs(&pairs),
        };
        let qos = Qos::from_number(args.qos).expect("the command line allows 0 to 2");
        Self { args, qos, properties: parts.encode() }
    }
}

struct Publisher<'a> {
    client: Client,
    template: Template<'a>,
    outstanding: HashSet<Tag>,
    refused: usize,
}

impl Publisher<'_> {
    fn all(&mut self, messages: &Receiver<Vec<u8>>) -> Result<()> {
        let window = self.client.receive_maximum().min(1024);
        loop {
            if self.outstanding.len() >= window {
                self.wait(Instant::now() + ANSWER_TIMEOUT)?;
                continue;
            }
            match messages.try_recv() {
                Ok(payload) => self.one(&payload)?,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => match messages.recv_timeout(TICK) {
                    Ok(payload) => self.one(&payload)?,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => self.look()?,
                },
            }
        }
        while !self.outstanding.is_empty() {
            self.wait(Instant::now() + ANSWER_TIMEOUT)?;
        }
        Ok(())
    }

    fn one(&mut self, payload: &[u8]) -> Result<()> {
        let tag = self.template.qos.is_acknowledged().then(|| self.client.tag());
        let args = self.template.args;
        let publish = Publish {
            dup: false,
            qos: self.template.qos,
            retain: args.retain,
            topic: &args.topic,
            tag,
            payload,
            properties: PublishProperties {
                message_expiry: args.expiry,
                forwarded: Forwarded::from_stored(&self.template.properties),
                ..PublishProperties::default()
            },
        };
        self.client.send(&Packet::Publish(publish))?;
        self.outstanding.extend(tag);
        Ok(())
    }

    /// Handles what is there already; also keeps the connection alive.
    fn look(&mut self) -> Result<()> {
        while let Some(incoming) = self.client.next(Instant::now())? {
            self.handle(incoming)?;
        }
        Ok(())
    }

    fn wait(&mut self, deadline: Instant) -> Result<()> {
        match self.client.next(deadline)? {
            Some(incoming) => self.handle(incoming),
            None => bail!("the server did not acknowledge within 30 s"),
        }
    }

    fn handle(&mut self, incoming: Incoming) -> Result<()> {
        match incoming {
            Incoming::PubAck(tag, reason) | Incoming::PubComp(tag, reason) => self.settle(tag, reason),
            Incoming::PubRec(tag, reason) if reason.is_error() => self.settle(tag, reason),
            Incoming::PubRec(tag, _) => self.client.send(&Packet::PubRel(Ack::new(tag, ReasonCode::Success)))?,
            Incoming::Disconnect(reason, text) => {
                refuse("the server ended the connection", reason, text.as_deref())?;
                bail!("the server ended the connection");
            }
            Incoming::Publish(_) | Incoming::PubRel(_) | Incoming::SubAck(_) => {}
        }
        Ok(())
    }

    fn settle(&mut self, tag: Tag, reason: ReasonCode) {
        self.outstanding.remove(&tag);
        if let Err(error) = refuse("message refused", reason, None) {
            self.refused += 1;
            eprintln!("{error}");
        }
    }
}
