//! Asks the running service for its status as any client would: one short HTTP request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::report::Status;

/// A service on loopback answers in milliseconds; the story must not wait for one that does not.
const BOUND: Duration = Duration::from_secs(2);

/// The answer of `/api/status`.
///
/// # Errors
/// No answer in time, or none that can be read.
pub fn status(http: SocketAddr) -> io::Result<Status> {
    let mut stream = TcpStream::connect_timeout(&http, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    write!(
        stream,
        "GET /api/status HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let body = head
        .and_then(|end| answer.get(end + 4..))
        .unwrap_or_default();
    Ok(serde_json::from_slice(body)?)
}
