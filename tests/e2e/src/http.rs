//! A request by HTTP/1.0: one connection each, an answer that ends with it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Status line and header fields.
    pub head: String,
    /// The rest.
    pub body: String,
}

/// Asks, and reads the answer to its end.
///
/// # Errors
/// When the connection fails, or what comes is no HTTP.
pub fn request(
    address: SocketAddr,
    method_and_path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method_and_path} HTTP/1.0\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "Host: localhost\r\n";
    }
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    if !body.is_empty() || method_and_path.starts_with("POST") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut reader = stream.try_clone()?;
    let whole = [head.as_bytes(), b"\r\n", body].concat();
    // A long stream is answered while it is sent.
    let sender = std::thread::spawn(move || stream.write_all(&whole));
    let mut answer = String::new();
    reader.read_to_string(&mut answer)?;
    let sent = sender.join().map_err(|_| io::Error::other("the sender panicked"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    if code.is_none() {
        sent?;
    }
    let code = code.ok_or_else(|| io::Error::other(format!("no HTTP status in {head:?}")))?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

/// Server-Sent Events, as they come.
pub struct Events {
    reader: BufReader<TcpStream>,
    /// The first line of the answer.
    pub status: String,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What is sent back as `Last-Event-ID`.
    pub id: String,
    /// What kind, if that is said.
    pub kind: String,
    /// What it says; nothing for one that says where the stream begins.
    pub data: String,
}

impl Events {
    /// Asks for events.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n");
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all((head + "\r\n").as_bytes())?;
        let mut events = Self { reader: BufReader::new(stream), status: String::new() };
        events.status = events.line()?;
        while !events.line()?.is_empty() {}
        Ok(events)
    }

    /// The next one; comments, which say that nothing has come, are passed over. `None` at the end.
    ///
    /// # Errors
    /// When the connection fails, or nothing comes for too long.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end_matches(['\r', '\n']);
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("event", kind)) => event.kind = kind.to_owned(),
                Some(("data", data)) => event.data = data.to_owned(),
                _ if line.is_empty() && event != Event::default() => return Ok(Some(event)),
                _ => {}
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}
