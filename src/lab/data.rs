//! Data connections: the passive listener with its faults (a port that answers no SYN, a closed
//! port) and the accepted connection, which tells a reset from a clean end and reports its own
//! end exactly once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::{SockRef, Socket};

use super::events::{Event, TransferEnd};
use super::server::{Shared, loopback_listener, loopback_socket};
use super::session::{End, Flow};
use super::wait::{Term, ended, reset, wait};
use crate::clock::mono;

/// Receive buffer of a connection whose reader is going to stop: the kernel doubles it, and the
/// window closes after a few KiB.
pub(super) const SMALL_BUFFER: usize = 4096;
/// How long a client may take from its STOR to its data connection.
const ACCEPT_TIME: Duration = Duration::from_secs(60);
/// At most this much is thrown away to see how an abandoned connection ended.
const DISCARD_MAX: usize = 8 << 20;

/// What answers at the data port.
enum Port {
    Open(TcpListener),
    /// Bound, not listening: connects are refused, and nobody else can get the port.
    Closed(Socket),
    /// The backlog is full of our own connections: a SYN gets no answer.
    Stuffed(TcpListener, Vec<TcpStream>),
}

/// The data port that EPSV or PASV opened.
pub(super) struct Passive {
    port: Port,
    number: u16,
    /// When a closed or stuffed port opens.
    pub term: Option<Term>,
}

impl Passive {
    pub(super) fn open(small: bool) -> io::Result<Self> {
        let listener = loopback_listener(8, small.then_some(SMALL_BUFFER))?;
        let number = listener.local_addr()?.port();
        Ok(Self {
            port: Port::Open(listener),
            number,
            term: None,
        })
    }

    pub(super) fn closed(term: Term) -> io::Result<Self> {
        let socket = loopback_socket()?;
        let bound: TcpListener = socket.try_clone()?.into();
        let number = bound.local_addr()?.port();
        Ok(Self {
            port: Port::Closed(socket),
            number,
            term: Some(term),
        })
    }

    pub(super) fn stuffed(term: Term) -> io::Result<Self> {
        // A backlog of b takes b + 1 connections; with one more place than the queue of
        // half-open ones needs, the kernel drops further SYNs and suspects no flood.
        const BACKLOG: i32 = 1;
        let listener = loopback_listener(BACKLOG, None)?;
        let addr = listener.local_addr()?;
        let fillers = (0..=BACKLOG)
            .map(|_| TcpStream::connect_timeout(&addr, ACCEPT_TIME))
            .collect::<io::Result<_>>()?;
        let port = Port::Stuffed(listener, fillers);
        Ok(Self {
            port,
            number: addr.port(),
            term: Some(term),
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Ends the fault of a closed or stuffed port.
    pub(super) fn unblock(self) -> io::Result<Self> {
        let port = match self.port {
            Port::Open(listener) => Port::Open(listener),
            Port::Closed(socket) => {
                socket.listen(8)?;
                socket.set_nonblocking(true)?;
                Port::Open(socket.into())
            }
            Port::Stuffed(listener, fillers) => {
                for _ in &fillers {
                    drop(listener.accept()?);
                }
                Port::Open(listener)
            }
        };
        Ok(Self {
            port,
            number: self.number,
            term: None,
        })
    }

    fn listener(&self) -> Option<&TcpListener> {
        match &self.port {
            Port::Open(listener) => Some(listener),
            Port::Closed(_) | Port::Stuffed(..) => None,
        }
    }

    /// The client's connection, if it is there already.
    pub(super) fn waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        self.listener()?.accept().ok()
    }

    /// Waits for the client's connection; `None` when none comes in time.
    pub(super) fn accept(&self, shared: &Shared, control: &TcpStream) -> Flow<Option<TcpStream>> {
        let end = Some(mono() + ACCEPT_TIME);
        let Some(listener) = self.listener() else {
            return Ok(None);
        };
        loop {
            if let Some((stream, peer)) = self.waiting() {
                if peer.ip().is_loopback() {
                    return Ok(Some(stream));
                }
                continue;
            }
            let mut fds = [
                shared.stop.watch(),
                PollFd::new(control, PollFlags::RDHUP),
                PollFd::new(listener, PollFlags::IN),
            ];
            if !wait(&mut fds, end)? {
                return Ok(None);
            }
            let gone = ended(fds[1].revents()) && fds[2].revents().is_empty();
            if shared.stop.is_open() {
                return Err(End::Stopped);
            } else if gone {
                return Err(End::Gone);
            }
        }
    }
}

/// One accepted data connection.
pub(super) struct DataConn {
    stream: TcpStream,
    shared: Arc<Shared>,
    session: u64,
    /// Payload so far.
    pub bytes: u64,
    reported: bool,
}

/// What a read found.
pub(super) enum Found {
    Bytes(usize),
    End(TransferEnd),
}

impl DataConn {
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>, session: u64) -> Flow<Self> {
        stream.set_nonblocking(true)?;
        shared.hub.publish(Event::DataConnected { session });
        Ok(Self {
            stream,
            shared,
            session,
            bytes: 0,
            reported: false,
        })
    }

    /// Keeps the window from growing beyond what it is.
    pub(super) fn shrink(&self) {
        // Only the size of the wedge depends on it.
        let _ = SockRef::from(&self.stream).set_recv_buffer_size(SMALL_BUFFER);
    }

    /// Tells how the connection ended; only the first time counts.
    pub(super) fn report(&mut self, how: TransferEnd) {
        if !std::mem::replace(&mut self.reported, true) {
            let (session, bytes) = (self.session, self.bytes);
            self.shared.hub.publish(Event::DataEnded {
                session,
                how,
                bytes,
            });
        }
    }

    /// What to poll for while nothing is read: only the client's reset shows.
    pub(super) fn watch(&self) -> Option<PollFd<'_>> {
        (!self.reported).then(|| PollFd::new(&self.stream, PollFlags::empty()))
    }

    /// Reports the reset if poll found one.
    pub(super) fn note(&mut self, found: PollFlags) {
        if reset(found) {
            self.report(TransferEnd::Reset);
        }
    }

    /// Reads some bytes, waiting for them.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Flow<Found> {
        loop {
            match self.stream.read(buf) {
                Ok(0) => {
                    self.report(TransferEnd::Eof);
                    return Ok(Found::End(TransferEnd::Eof));
                }
                Ok(n) => {
                    self.bytes += n as u64;
                    return Ok(Found::Bytes(n));
                }
                Err(error) => {
                    if let Some(how) = self.failed(&error, PollFlags::IN)? {
                        return Ok(Found::End(how));
                    }
                }
            }
        }
    }

    /// Writes everything, waiting as needed; the end is `Eof` when all went out.
    pub(super) fn write_all(&mut self, mut rest: &[u8]) -> Flow<Option<TransferEnd>> {
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(n) => {
                    self.bytes += n as u64;
                    rest = &rest[n..];
                }
                Err(error) => {
                    if let Some(how) = self.failed(&error, PollFlags::OUT)? {
                        return Ok(Some(how));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Waits if the call would have blocked (`None`: try again); else the end it tells of.
    fn failed(&mut self, error: &io::Error, ready: PollFlags) -> Flow<Option<TransferEnd>> {
        let how = match error.kind() {
            io::ErrorKind::WouldBlock => {
                let stop = &self.shared.stop;
                wait(&mut [stop.watch(), PollFd::new(&self.stream, ready)], None)?;
                return if stop.is_open() {
                    Err(End::Stopped)
                } else {
                    Ok(None)
                };
            }
            io::ErrorKind::Interrupted => return Ok(None),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => TransferEnd::Reset,
            _ => TransferEnd::Error,
        };
        self.report(how);
        Ok(Some(how))
    }

    /// The clean end of a download.
    pub(super) fn finish(mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.report(TransferEnd::Eof);
    }

    /// Resets the connection.
    pub(super) fn reset(self) {
        // Lingering for no time makes the close a reset.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Closes the connection with a FIN, although the client is still sending.
    pub(super) fn close(mut self) {
        // The FIN goes first: a close with unread bytes would be a reset and nothing else.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.report(TransferEnd::Aborted);
        self.discard();
    }

    /// Throws away what has come, and tells how it ended if that shows.
    pub(super) fn discard(&mut self) {
        let mut buf = vec![0; 64 * 1024];
        let mut left = DISCARD_MAX;
        while left > 0 {
            match self.stream.read(&mut buf) {
                Ok(0) => return self.report(TransferEnd::Eof),
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return self.report(TransferEnd::Reset);
                }
                Err(_) => return,
            }
        }
    }
}

impl Drop for DataConn {
    fn drop(&mut self) {
        self.report(TransferEnd::Aborted);
    }
}
