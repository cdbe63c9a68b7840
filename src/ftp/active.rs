//! Active mode (RFC 959 section 5.2, RFC 2428 section 2): we listen, and the server connects.
//! suppaftp's own listener can neither be ended from outside nor bound to a range of ports, so ours
//! stands behind its passive mode: it is told of a passive port that does not exist, and gets the
//! accepted connection when the server has taken the command. Only the peer of the control
//! connection is accepted (RFC 2577 section 3).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::PollFlags;
use slog::{Logger, warn};
use suppaftp::Status;

use super::{Session, Setup, Trouble};
use crate::core::names::Phase;
use crate::sys::fence::Which;
use crate::sys::socket;

/// What suppaftp takes for the reply to its EPSV.
pub(super) const PRETENDED: &[u8] = b"229 (|||1|)\r\n";

/// A place where the server may connect to us, once.
pub(super) struct Offer {
    listener: TcpListener,
    /// Who may.
    peer: IpAddr,
}

#[cfg(test)]
impl Offer {
    /// One for this machine.
    pub(super) fn any() -> io::Result<Self> {
        let peer = IpAddr::from([127, 0, 0, 1]);
        let listener = listen(peer, None)?;
        Ok(Self { listener, peer })
    }
}

impl Session {
    /// In active mode: listens, and tells the server where. To be called before every data command.
    pub(super) fn offer(&mut self) -> Result<(), Trouble> {
        let Some(active) = self.setup.route.active.clone() else {
            return Ok(());
        };
        let handle = Arc::clone(&self.setup.handle);
        let failed = |e: &io::Error| Trouble::from_io(&handle, "listening for the server", e);
        let (local, peer) = {
            let control = self.client.get_ref();
            (control.local_addr(), control.peer_addr())
        };
        let local = local.map_err(|e| failed(&e))?.ip();
        let peer = peer.map_err(|e| failed(&e))?.ip();
        let listener = listen(local, active.ports).map_err(|e| failed(&e))?;
        let port = listener.local_addr().map_err(|e| failed(&e))?.port();
        let told = SocketAddr::new(active.address.unwrap_or(local).to_canonical(), port);
        let (verb, argument) = announcement(told);
        self.command(verb, &argument, &[Status::CommandOk])?;
        self.line.expect(Offer { listener, peer });
        Ok(())
    }

    /// Begins the wait for the reply to a data command. In active mode it is the wait for the
    /// server's connection, too: vsftpd and others connect before they answer.
    pub(super) fn begin_data_command(&self) {
        let Setup { handle, timers, .. } = &self.setup;
        match self.line.expects() {
            true => handle.begin(Phase::Listen, Some(timers.listen)),
            false => handle.begin(Phase::Reply, Some(timers.reply)),
        }
    }
}

/// What the server is told.
fn announcement(told: SocketAddr) -> (&'static str, String) {
    match told.ip() {
        // Every server knows PORT.
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            let [high, low] = told.port().to_be_bytes();
            ("PORT", format!("{a},{b},{c},{d},{high},{low}"))
        }
        IpAddr::V6(ip) => ("EPRT", format!("|2|{ip}|{}|", told.port())),
    }
}

/// Listens on one of these ports, or on any.
fn listen(local: IpAddr, ports: Option<RangeInclusive<u16>>) -> io::Result<TcpListener> {
    let listener = match ports {
        None => TcpListener::bind((local, 0))?,
        Some(ports) => {
            let mut last = None;
            let found = in_turn(&ports).find_map(|port| match TcpListener::bind((local, port)) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    last = Some(error);
                    None
                }
            });
            match (found, last) {
                (Some(listener), _) => listener,
                (None, Some(error)) => {
                    let (first, last) = (ports.start(), ports.end());
                    let told = format!("no port of active_ports {first}-{last} is free: {error}");
                    return Err(io::Error::new(error.kind(), told));
                }
                (None, None) => return Err(ErrorKind::InvalidInput.into()),
            }
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// All ports of a range, from a random one on: one that was used just now may still be in the
/// server's memory.
fn in_turn(ports: &RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    let (first, last) = (*ports.start(), *ports.end());
    let room = f64::from(last - first) + 1.0;
    // The share is below 1, so this stays within the range.
    let start = first + (crate::token::random() * room) as u16;
    (start..=last).chain(first..start)
}

/// What suppaftp gets in place of the connection that will be accepted.
pub(super) fn stand_in() -> io::Result<TcpStream> {
    Ok(TcpStream::from(OwnedFd::from(UnixStream::pair()?.0)))
}

/// Waits for the server to connect.
pub(super) fn accept(setup: &Setup, offer: &Offer) -> Result<TcpStream, Trouble> {
    let Setup { handle, log, .. } = setup;
    handle.begin(Phase::Listen, Some(setup.timers.listen));
    let failed = |e: &io::Error| Trouble::from_io(handle, "accepting the server's connection", e);
    loop {
        let readable = Some((offer.listener.as_fd(), PollFlags::IN));
        // No answer to a Ping: whether the path lives is for the vouchers to say.
        handle.fence.wait(readable, None).map_err(|e| failed(&e))?;
        handle.check()?;
        match offer.listener.accept() {
            Ok((stream, from)) if from.ip().to_canonical() == offer.peer.to_canonical() => {
                return keep(setup, stream);
            }
            Ok((_, from)) => stranger(log, from),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

fn stranger(log: &Logger, from: SocketAddr) {
    warn!(log, "a stranger connected in place of the server"; "peer" => %from,
        "next" => "it is turned away, the server is waited for");
}

/// Puts the connection under the fence, with the options of every other one.
fn keep(setup: &Setup, stream: TcpStream) -> Result<TcpStream, Trouble> {
    let handle = &setup.handle;
    let failed = |e: &io::Error| Trouble::from_io(handle, "accepting the server's connection", e);
    socket::tune(stream.as_fd(), setup.detection).map_err(|e| failed(&e))?;
    stream.set_nonblocking(false).map_err(|e| failed(&e))?;
    handle
        .fence
        .keep(Which::Data, stream.as_fd())
        .map_err(|e| failed(&e))?
        .map_err(|_| Trouble::Ended)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_in_the_form_of_the_address() {
        let (verb, argument) = announcement("192.0.2.7:50001".parse().unwrap());
        assert_eq!((verb, argument.as_str()), ("PORT", "192,0,2,7,195,81"));
        let (verb, argument) = announcement("[2001:db8::7]:21".parse().unwrap());
        assert_eq!((verb, argument.as_str()), ("EPRT", "|2|2001:db8::7|21|"));
    }

    #[test]
    fn every_port_of_a_range_is_tried_once() {
        for _ in 0..20 {
            let mut tried: Vec<u16> = in_turn(&(50_000..=50_004)).collect();
            tried.sort_unstable();
            assert_eq!(tried, [50_000, 50_001, 50_002, 50_003, 50_004]);
        }
        assert_eq!(in_turn(&(u16::MAX..=u16::MAX)).count(), 1);
    }

    #[test]
    fn a_range_without_a_free_port_is_named() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let held = TcpListener::bind((local, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let error = listen(local, Some(port..=port)).unwrap_err();
        assert!(error.to_string().contains("active_ports"), "{error}");
    }
}
