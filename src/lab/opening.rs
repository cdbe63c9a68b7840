//! How a data connection comes about: accepted at the passive port, or made to the client's own
//! port (EPRT, PORT) with the faults of active mode; then the 150, then TLS. It connects nowhere
//! but to loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

use super::data::{DataConn, SMALL_BUFFER};
use super::fault::Kind;
use super::quirk::Quirk;
use super::server::loopback_socket;
use super::session::{End, Flow, Session};
use super::stream::Stream;
use super::wait::{ended, wait};
use crate::clock::mono;

/// How long a connection to the client's port may take.
const CONNECT_TIME: Duration = Duration::from_secs(60);
/// Whom nobody waits for.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

impl Session {
    pub(super) fn port(&mut self, arg: &[u8]) -> Flow {
        if self.control.local_ip()?.is_ipv6() {
            return self.reply(425, "You cannot use PORT over IPv6, use EPRT.");
        }
        match parse_port(arg) {
            Some(addr) => self.set_active(addr),
            None => self.reply(501, "Not an address and a port."),
        }
    }

    pub(super) fn eprt(&mut self, arg: &[u8]) -> Flow {
        let ipv4 = self.control.local_ip()?.is_ipv4();
        match parse_eprt(arg) {
            Some(addr) if addr.is_ipv4() == ipv4 => self.set_active(addr),
            Some(_) if ipv4 => self.reply(522, "Protocol not supported, use (1)"),
            Some(_) => self.reply(522, "Protocol not supported, use (2)"),
            None => self.reply(501, "Not an address and a port."),
        }
    }

    fn set_active(&mut self, addr: SocketAddr) -> Flow {
        if !addr.ip().is_loopback() || addr.port() < 1024 {
            return self.reply(500, "Illegal address or port.");
        }
        self.passive = None;
        self.active = Some(addr);
        self.reply(200, "Ok, now to the transfer.")
    }

    /// Opens the data connection of a transfer of `path`, says 150 with `text`, and makes it TLS.
    /// `before` is done between the connection and the 150. `None`: the refusal is given.
    pub(super) fn open_data(
        &mut self,
        path: &str,
        text: &str,
        before: impl FnOnce(&mut Self, &mut DataConn) -> Flow,
    ) -> Flow<Option<DataConn>> {
        self.done = None;
        let active = self.active.is_some();
        let never = match active {
            true => self.strike(path, |kind| *kind == Kind::NoConnect)?,
            false => None,
        };
        let late = active && self.shared.character.has(&Quirk::ConnectsLate);
        let says_first = late || never.is_some();
        if says_first {
            self.reply(150, text)?;
        }
        if let Some(strike) = never {
            self.freeze(&strike.term, None)?;
        }
        let stream = match self.active.take() {
            Some(addr) => self.connect_data(path, addr)?,
            None => self.accept_data()?,
        };
        let Some(stream) = stream else {
            self.reply(425, "No data connection came.")?;
            return Ok(None);
        };
        let mut data = self.data_conn(Stream::new(stream)?);
        before(self, &mut data)?;
        if !says_first {
            self.reply(150, text)?;
        }
        if self.protected && !self.secure_data(path, &mut data)? {
            return Ok(None);
        }
        Ok(Some(data))
    }

    pub(super) fn data_conn(&self, stream: Stream) -> DataConn {
        DataConn::new(stream, Arc::clone(&self.shared), self.id)
    }

    /// Takes the data port and waits for the client's connection to it.
    fn accept_data(&mut self) -> Flow<Option<TcpStream>> {
        self.unblock_passive()?;
        let Some(passive) = self.passive.take() else {
            return Ok(None);
        };
        passive.accept(&self.shared, &self.control)
    }

    /// Connects to the client's port.
    fn connect_data(&mut self, path: &str, addr: SocketAddr) -> Flow<Option<TcpStream>> {
        let stranger = match addr.is_ipv4() {
            true => self.strike(path, |kind| *kind == Kind::Stranger)?,
            false => None,
        };
        // It stays until the right one stands: a client that takes it is not let off by its end.
        let _stranger = match stranger {
            Some(_) => self.connect(IpAddr::V4(STRANGER), addr)?,
            None => None,
        };
        let own = self.control.local_ip()?;
        self.connect(own, addr)
    }

    fn connect(&self, from: IpAddr, to: SocketAddr) -> Flow<Option<TcpStream>> {
        let socket = loopback_socket(from)?;
        socket.set_nonblocking(true)?;
        if self.shared.armed.any_stop_reading() {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        let began = socket.connect(&to.into());
        let stream = TcpStream::from(socket);
        match began {
            Ok(()) => return Ok(Some(stream)),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(_) => return Ok(None),
        }
        let end = Some(mono() + CONNECT_TIME);
        let mut fds = [
            self.shared.stop.watch(),
            PollFd::new(&self.control, PollFlags::RDHUP),
            PollFd::new(&stream, PollFlags::OUT),
        ];
        let came = wait(&mut fds, end)?;
        let gone = ended(fds[1].revents()) && fds[2].revents().is_empty();
        if self.shared.stop.is_open() {
            Err(End::Stopped)
        } else if gone {
            Err(End::Gone)
        } else {
            let failed: Option<io::Error> = SockRef::from(&stream).take_error()?;
            Ok((came && failed.is_none()).then_some(stream))
        }
    }
}

/// `h1,h2,h3,h4,p1,p2`
fn parse_port(arg: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(arg).ok()?;
    let numbers: Vec<u8> = text
        .split(',')
        .map(|number| number.trim().parse().ok())
        .collect::<Option<_>>()?;
    let [a, b, c, d, high, low] = numbers.try_into().ok()?;
    let port = u16::from_be_bytes([high, low]);
    Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)))
}

/// `|1|address|port|`, with any delimiter
fn parse_eprt(arg: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(arg).ok()?;
    let delimiter = text.chars().next()?;
    let mut parts = text.split(delimiter).skip(1);
    let (family, ip, port) = (parts.next()?, parts.next()?, parts.next()?);
    let ip: IpAddr = ip.parse().ok()?;
    let fits = family == if ip.is_ipv4() { "1" } else { "2" };
    fits.then_some(SocketAddr::new(ip, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_active_mode_are_read_in_both_forms() {
        let four = "127.0.0.1:2050".parse().ok();
        assert_eq!(parse_port(b"127,0,0,1,8,2"), four);
        assert_eq!(parse_eprt(b"|1|127.0.0.1|2050|"), four);
        assert_eq!(parse_eprt(b"|2|::1|2050|"), "[::1]:2050".parse().ok());
        for wrong in [&b"127,0,0,1,8"[..], b"127,0,0,1,8,256", b"a", b""] {
            assert_eq!(parse_port(wrong), None);
        }
        for wrong in [&b"|2|127.0.0.1|2050|"[..], b"|1|127.0.0.1|x|", b"|1|", b""] {
            assert_eq!(parse_eprt(wrong), None);
        }
    }
}
