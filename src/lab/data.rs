//! One data connection, plain or TLS: it tells a reset from a clean end and reports its own end
//! exactly once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

use super::events::{Event, TransferEnd};
use super::server::Shared;
use super::session::{End, Flow};
use super::stream::Stream;
use super::wait::{reset, wait};

/// Receive buffer of a connection whose reader is going to stop: the kernel doubles it, and the
/// window closes after a few KiB.
pub(super) const SMALL_BUFFER: usize = 4096;
/// The window that Linux offers at first; the kernel keeps twice as much room for it.
const PROMISED_WINDOW: usize = 64 * 1024;
/// At most this much is thrown away to see how an abandoned connection ended.
const DISCARD_MAX: usize = 8 << 20;

/// One accepted data connection.
pub(super) struct DataConn {
    pub stream: Stream,
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
    pub(super) fn new(stream: Stream, shared: Arc<Shared>, session: u64) -> Self {
        shared.hub.publish(Event::DataConnected { session });
        Self {
            stream,
            shared,
            session,
            bytes: 0,
            reported: false,
        }
    }

    /// Keeps the window from growing beyond what every connection starts with. A buffer smaller
    /// than a window that is already promised would drop segments and look like a dead path.
    pub(super) fn hold_window(&self) {
        let socket = SockRef::from(&self.stream);
        let small = socket
            .recv_buffer_size()
            .is_ok_and(|bytes| bytes <= 2 * SMALL_BUFFER);
        if !small {
            // Only the size of the wedge depends on it.
            let _ = socket.set_recv_buffer_size(PROMISED_WINDOW);
        }
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

    /// The socket, for its options.
    pub(super) fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.stream)
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

    /// Reads some bytes that are here already; `None` if there are none.
    pub(super) fn read_received(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(buf) {
            Ok(0) => Ok(None),
            Ok(n) => {
                self.bytes += n as u64;
                Ok(Some(n))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes everything, waiting as needed; the end that it met with on the way, if any.
    pub(super) fn write_all(&mut self, mut rest: &[u8]) -> Flow<Option<TransferEnd>> {
        loop {
            let written = if rest.is_empty() {
                self.stream.flush().map(|()| None)
            } else {
                self.stream.write(rest).map(Some)
            };
            match written {
                Ok(None) => return Ok(None),
                Ok(Some(n)) => {
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

    /// Says goodbye in TLS's own words, if it is TLS.
    pub(super) fn close_notify(&mut self) -> Flow {
        self.stream.close_notify();
        // A client that is gone needs no goodbye; its end is told.
        self.write_all(&[]).map(drop)
    }

    /// The clean end of a download.
    pub(super) fn finish(&mut self) -> Flow {
        self.close_notify()?;
        self.stream.finish();
        self.report(TransferEnd::Eof);
        Ok(())
    }

    /// Resets the connection.
    pub(super) fn reset(self) {
        // Lingering for no time makes the close a reset.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Closes the connection with a FIN, although the client is still sending.
    pub(super) fn close(mut self) -> Flow {
        self.close_notify()?;
        // The FIN goes first: a close with unread bytes would be a reset and nothing else.
        self.stream.finish();
        self.report(TransferEnd::Aborted);
        self.discard();
        Ok(())
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
