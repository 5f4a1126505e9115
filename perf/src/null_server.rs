//! A server that does as little as MQTT allows: what a load costs the generator alone.
//!
//! It answers CONNECT, SUBSCRIBE, PINGREQ, and PUBLISH by QoS, and hands each PUBLISH on, byte by byte, to whoever has
//! subscribed to exactly its topic. It keeps no session, matches no wildcard, and forgets who does not read. A run of
//! `postroad-bench` against it has the system calls of a run against a broker, on both sides; what the generator takes then is its own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};
use clap::Args;
use rustix::event::epoll;

use crate::probe;
use crate::wire::{self, Acknowledge};

const SCRATCH_BYTES: usize = 256 * 1024;
const EVENTS_PER_TURN: usize = 1024;
/// The listener's number among the events.
const LISTENER: u64 = u64::MAX;
/// Who has so much unread is closed.
const UNREAD_BYTES_MAX: usize = 64 << 20;

/// Serve as little as MQTT allows, until it is ended by a signal.
#[derive(Args, Clone, Debug)]
pub struct NullServerOptions {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
}

/// Serves for ever.
pub fn run(options: &NullServerOptions) -> Result<()> {
    probe::raise_file_limit();
    let listener = TcpListener::bind((options.host.as_str(), options.port))
        .with_context(|| format!("cannot listen on {}:{}", options.host, options.port))?;
    let mut server = Server::new(listener)?;
    loop {
        server.turn().context("the null server has failed")?;
    }
}

struct Server {
    listener: TcpListener,
    epoll: rustix::fd::OwnedFd,
    clients: Vec<Option<Client>>,
    /// Receivers by topic.
    subscribers: HashMap<Vec<u8>, Vec<usize>>,
    /// Clients that have something to be sent.
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Client {
    stream: TcpStream,
    is_v5: bool,
    /// Bytes of a packet that has not come whole.
    tail: Vec<u8>,
    out: Vec<u8>,
    out_at: usize,
}

impl Server {
    fn new(listener: TcpListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            listener,
            epoll,
            clients: Vec::new(),
            subscribers: HashMap::new(),
            dirty: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            events: Vec::with_capacity(EVENTS_PER_TURN),
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => self.accept()?,
                id => self.ready(id as usize, event.flags),
            }
        }
        self.events = events;
        for id in std::mem::take(&mut self.dirty) {
            self.flush(id);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let id = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(id as u64), flags)?;
            let client = Client { stream, is_v5: false, tail: Vec::new(), out: Vec::new(), out_at: 0 };
            if id == self.clients.len() {
                self.clients.push(Some(client));
            } else {
                self.clients[id] = Some(client);
            }
        }
    }

    fn ready(&mut self, id: usize, flags: epoll::EventFlags) {
        let ends = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        // What came before the end is handled; nobody hears an answer.
        if flags.contains(epoll::EventFlags::IN) && self.read(id).is_err() || ends {
            return self.end(id);
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.dirty.push(id);
        }
    }

    fn end(&mut self, id: usize) {
        self.clients[id] = None;
        self.subscribers.values_mut().for_each(|receivers| receivers.retain(|receiver| *receiver != id));
    }

    /// Reads until the socket is empty; an error if it has ended, or holds what is no MQTT.
    fn read(&mut self, id: usize) -> io::Result<()> {
        loop {
            let Some(client) = &mut self.clients[id] else { return Ok(()) };
            let kept = client.tail.len();
            if self.scratch.len() < kept + SCRATCH_BYTES / 2 {
                self.scratch.resize(kept + SCRATCH_BYTES, 0);
            }
            self.scratch[..kept].copy_from_slice(&client.tail);
            let room = self.scratch.len() - kept;
            let bytes = match client.stream.read(&mut self.scratch[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let scratch = std::mem::take(&mut self.scratch);
            let used = self.packets(id, &scratch[..kept + bytes]);
            self.scratch = scratch;
            let used = used.ok_or(io::ErrorKind::InvalidData)?;
            if let Some(client) = &mut self.clients[id] {
                client.tail.clear();
                client.tail.extend_from_slice(&self.scratch[used..kept + bytes]);
            }
            if bytes < room {
                return Ok(());
            }
        }
    }

    /// Handles each whole packet; the bytes used.
    fn packets(&mut self, id: usize, input: &[u8]) -> Option<usize> {
        let mut used = 0;
        while let Some((head, body)) = wire::fixed_header(&input[used..]).ok()? {
            let Some(packet) = input.get(used..used + head + body) else { break };
            self.packet(id, packet, &packet[head..])?;
            used += head + body;
        }
        self.dirty.push(id);
        Some(used)
    }

    fn packet(&mut self, id: usize, whole: &[u8], body: &[u8]) -> Option<()> {
        match whole[0] >> 4 {
            1 => {
                let client = self.clients[id].as_mut()?;
                client.is_v5 = *body.get(6)? == 5;
                client.out.extend_from_slice(if client.is_v5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] });
            }
            3 => self.publish(id, whole, body)?,
            6 => wire::acknowledge(&mut self.clients[id].as_mut()?.out, Acknowledge::Pubcomp, packet_id(body)?),
            5 => wire::acknowledge(&mut self.clients[id].as_mut()?.out, Acknowledge::Pubrel, packet_id(body)?),
            8 => self.subscribe(id, body)?,
            12 => self.clients[id].as_mut()?.out.extend_from_slice(&[0xD0, 0]),
            _ => {} // acknowledgements of receivers, DISCONNECT
        }
        Some(())
    }

    fn publish(&mut self, id: usize, whole: &[u8], body: &[u8]) -> Option<()> {
        let topic_bytes = usize::from(u16::from_be_bytes(*body.first_chunk()?));
        let (topic, rest) = body.get(2..)?.split_at_checked(topic_bytes)?;
        let answer = match (whole[0] >> 1) & 3 {
            0 => None,
            1 => Some(Acknowledge::Puback),
            _ => Some(Acknowledge::Pubrec),
        };
        if let Some(answer) = answer {
            wire::acknowledge(&mut self.clients[id].as_mut()?.out, answer, packet_id(rest)?);
        }
        let receivers = self.subscribers.get(topic).map_or(&[][..], Vec::as_slice);
        for &receiver in receivers {
            if let Some(client) = &mut self.clients[receiver] {
                if client.out.len() == client.out_at {
                    self.dirty.push(receiver);
                }
                client.out.extend_from_slice(whole);
            }
        }
        Some(())
    }

    /// One filter, as the generator sends it.
    fn subscribe(&mut self, id: usize, body: &[u8]) -> Option<()> {
        let client = self.clients[id].as_mut()?;
        let [high, low] = packet_id(body)?.to_be_bytes();
        let at = if client.is_v5 { 3 } else { 2 }; // no property is sent
        let filter_bytes = usize::from(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
        let (filter, options) = body.get(at + 2..)?.split_at_checked(filter_bytes)?;
        let qos = *options.first()? & 3;
        let answer: &[u8] = if client.is_v5 { &[0x90, 4, high, low, 0, qos] } else { &[0x90, 3, high, low, qos] };
        client.out.extend_from_slice(answer);
        let receivers = self.subscribers.entry(filter.to_vec()).or_default();
        if !receivers.contains(&id) {
            receivers.push(id);
        }
        Some(())
    }

    fn flush(&mut self, id: usize) {
        let Some(Some(client)) = self.clients.get_mut(id) else { return };
        while client.out_at < client.out.len() {
            match client.stream.write(&client.out[client.out_at..]) {
                Ok(bytes) => client.out_at += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.end(id),
            }
        }
        if client.out_at == client.out.len() {
            client.out.clear();
            client.out_at = 0;
        } else if client.out.len() - client.out_at > UNREAD_BYTES_MAX {
            self.end(id);
        }
    }
}

fn packet_id(body: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*body.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server on a thread that ends with the test's process, and its port.
    fn serve() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut server = Server::new(listener).unwrap();
            while server.turn().is_ok() {}
        });
        port
    }

    fn exchange(stream: &mut TcpStream, request: &[u8], answer: &[u8]) {
        stream.write_all(request).unwrap();
        let mut read = vec![0; answer.len()];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(read, answer);
    }

    #[test]
    fn a_publish_reaches_who_has_its_topic() {
        let port = serve();
        let mut receiver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        exchange(&mut receiver, b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00", b"\x20\x03\x00\x00\x00");
        exchange(&mut receiver, b"\x82\x08\x00\x01\x00\x00\x02ab\x01", b"\x90\x04\x00\x01\x00\x01");
        let mut publisher = TcpStream::connect(("127.0.0.1", port)).unwrap();
        exchange(&mut publisher, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x00");
        let publish = b"\x32\x08\x00\x02ab\x00\x07hi";
        exchange(&mut publisher, publish, b"\x40\x02\x00\x07");
        exchange(&mut receiver, b"\xc0\x00", b"\x32\x08\x00\x02ab\x00\x07hi\xd0\x00");
        exchange(&mut publisher, b"\x34\x06\x00\x02zz\x00\x08", b"\x50\x02\x00\x08");
        exchange(&mut publisher, b"\x62\x02\x00\x08", b"\x70\x02\x00\x08");
    }

    #[test]
    fn a_packet_may_come_in_pieces_and_nonsense_ends_the_connection() {
        let port = serve();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (first, second) = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00".split_at(5);
        client.write_all(first).unwrap();
        exchange(&mut client, second, b"\x20\x02\x00\x00");
        client.write_all(b"\x30\xff\xff\xff\xff\x7f").unwrap();
        assert_eq!(client.read(&mut [0; 10]).unwrap(), 0);
        // Its place is free: a topic of the next one is not its.
        let mut other = TcpStream::connect(("127.0.0.1", port)).unwrap();
        exchange(&mut other, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x00");
    }
}
