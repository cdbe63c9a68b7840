//! One connection, plain or TLS, as non-blocking bytes: a call that cannot go on says
//! `WouldBlock`, and its caller waits on the socket. What TLS had to keep back is sent by the next
//! `write` or `flush`. It never waits, but for the handshake.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use super::reply::pause;
use super::server::Shared;
use super::session::{End, Flow};
use super::wait::{Term, wait};
use crate::clock::{Mono, mono};

/// How long a client may take over its part of a handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// As much as one TLS record holds; what is not yet sent stays as little as that.
const RECORD: usize = 16 * 1024;

pub(super) struct Stream {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn alert(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Sends what TLS holds ready.
fn push(tls: &mut ServerConnection, mut socket: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    Ok(())
}

impl Stream {
    /// A plain connection.
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, tls: None })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether its handshake took up an earlier session.
    pub(super) fn resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    pub(super) fn local_ip(&self) -> io::Result<std::net::IpAddr> {
        Ok(self.socket.local_addr()?.ip())
    }

    /// Reads some bytes; none is the peer's clean end. A TLS peer that goes without its
    /// close_notify is an error.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(buf);
        };
        loop {
            match tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            tls.read_tls(&mut self.socket)?;
            tls.process_new_packets().map_err(alert)?;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write(bytes);
        };
        push(tls, &self.socket)?;
        let taken = tls.writer().write(&bytes[..bytes.len().min(RECORD)])?;
        match push(tls, &self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => push(tls, &self.socket),
            None => Ok(()),
        }
    }

    /// Says that nothing more comes, in TLS's own words; it goes out with the next `flush`.
    pub(super) fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// The FIN in this direction.
    pub(super) fn finish(&self) {
        // A peer that is gone needs no FIN.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The end of the connection in both directions.
    pub(super) fn hang_up(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Sends bytes past TLS, as somebody on the way would.
    pub(super) fn inject(&mut self, bytes: &[u8]) {
        // Whether it comes through is what the test is about.
        let _ = self.socket.write(bytes);
    }

    /// The server's side of a TLS handshake; its bytes come one by one if it drips. The inner
    /// result is its failure, after which the connection is of no use.
    pub(super) fn accept_tls(
        &mut self,
        config: Arc<ServerConfig>,
        shared: &Shared,
        drip: Option<(Duration, Term)>,
    ) -> Flow<io::Result<()>> {
        let end = mono() + HANDSHAKE_TIME;
        let mut tls = match ServerConnection::new(config) {
            Ok(tls) => Box::new(tls),
            Err(error) => return Ok(Err(alert(error))),
        };
        loop {
            let mut flight = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut flight)?;
            }
            if let Err(error) = self.send_raw(&flight, shared, drip.as_ref(), end)? {
                return Ok(Err(error));
            }
            if !tls.is_handshaking() {
                self.tls = Some(tls);
                return Ok(Ok(()));
            }
            let read = match tls.read_tls(&mut self.socket) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => tls.process_new_packets().map_err(alert).map(drop),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(shared, PollFlags::IN, end)?
                }
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                // The alert that says why, to a client that still listens.
                let _ = push(&mut tls, &self.socket);
                return Ok(Err(error));
            }
        }
    }

    fn send_raw(
        &mut self,
        mut rest: &[u8],
        shared: &Shared,
        drip: Option<&(Duration, Term)>,
        end: Mono,
    ) -> Flow<io::Result<()>> {
        let mut drip = drip;
        while !rest.is_empty() {
            let next = if drip.is_some() { 1 } else { rest.len() };
            match self.socket.write(&rest[..next]) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.ready(shared, PollFlags::OUT, end)? {
                        return Ok(Err(error));
                    }
                    continue;
                }
                Err(error) => return Ok(Err(error)),
            }
            if let Some((every, term)) = drip
                && pause(shared, None, *every, term)?
            {
                drip = None;
            }
        }
        Ok(Ok(()))
    }

    fn ready(&self, shared: &Shared, flags: PollFlags, end: Mono) -> Flow<io::Result<()>> {
        let mut fds = [shared.stop.watch(), PollFd::new(&self.socket, flags)];
        let came = wait(&mut fds, Some(end))?;
        if shared.stop.is_open() {
            return Err(End::Stopped);
        }
        Ok(came.then_some(()).ok_or(io::ErrorKind::TimedOut.into()))
    }
}
