//! A request by HTTP/1.0: one connection each, an answer that ends with it.

use std::io::{self, Read, Write};
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
