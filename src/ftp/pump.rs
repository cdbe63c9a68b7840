//! Moves the bytes of an upload to its data connection and waits until the peer has them, and its
//! end of the connection. Every chunk and every sign of progress is a safe point; nothing is
//! promised about the file on the server, which only the final reply tells.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::pace::Pace;
use super::stream::Wire;
use super::{Session, Trouble, tls};
use crate::clock::{self, Mono};
use crate::core::names::Phase;
use crate::failpoint;
use crate::pulse::WorkerHandle;
use crate::sys::fence::Woken;
use crate::sys::socket;

/// Bytes given to the kernel in one call: a safe point comes after each.
const CHUNK: usize = 512 * 1024;
/// Buffer of the plain loop, where sendfile does not work.
const BUFFER: usize = 128 * 1024;
/// Bounds of the pauses between two looks at the send queue: no event tells that it is empty.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(100);

/// Hands exactly the bytes from `offset` to `size` to the kernel.
pub(super) fn pump(
    handle: &WorkerHandle,
    wire: &mut Wire,
    file: &mut File,
    mut offset: u64,
    size: u64,
    pace: &mut Pace<'_>,
) -> Result<(), Trouble> {
    while offset < size {
        handle.check()?;
        let Some(socket) = wire.plain() else {
            return pump_plainly(handle, wire, file, offset, size, pace);
        };
        let want = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        let want = pace.allow(handle, socket, want)?;
        match rustix::fs::sendfile(socket, &*file, Some(&mut offset), want) {
            Ok(0) => return Err(Trouble::Changed),
            Ok(moved) => {
                pace.sent(moved);
                handle.moved(moved as u64);
                failpoint::at("bytes-moved");
            }
            Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::NOSYS) => {
                return pump_plainly(handle, wire, file, offset, size, pace);
            }
            Err(Errno::IO) => return Err(Trouble::Source("reading the source failed".into())),
            Err(error) => return Err(Trouble::from_io(handle, "sending", &error.into())),
        }
    }
    Ok(())
}

/// The same over TLS, or where the source's file system has no sendfile.
fn pump_plainly(
    handle: &WorkerHandle,
    wire: &mut Wire,
    file: &mut File,
    mut offset: u64,
    size: u64,
    pace: &mut Pace<'_>,
) -> Result<(), Trouble> {
    let unreadable = |e: io::Error| Trouble::Source(format!("reading the source failed: {e}"));
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    let mut buffer = vec![0u8; BUFFER];
    while offset < size {
        handle.check()?;
        let want = usize::try_from(size - offset).unwrap_or(BUFFER).min(BUFFER);
        let want = pace.allow(handle, wire.socket(), want)?;
        let read = match file.read(&mut buffer[..want]) {
            Ok(0) => return Err(Trouble::Changed),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(e)),
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            handle.check()?;
            match wire.write(rest) {
                Ok(moved) => {
                    pace.sent(moved);
                    handle.moved(moved as u64);
                    rest = &rest[moved..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Trouble::from_io(handle, "sending", &e)),
            }
        }
        offset += read as u64;
    }
    Ok(())
}

/// Waits until the peer has acknowledged every byte, or says something before that.
pub(super) fn drain(
    session: &Session,
    socket: &TcpStream,
    end: Option<Mono>,
) -> Result<(), Trouble> {
    let handle = &session.setup.handle;
    handle.begin(
        Phase::Drain,
        end.map(|end| end.saturating_sub(clock::mono())),
    );
    let control = session.client.get_ref();
    let (mut look, mut left) = (LOOK_FIRST, u64::MAX);
    loop {
        let queued = socket::unacknowledged(socket.as_fd());
        // First: over a dead descriptor the queue looks empty.
        handle.check()?;
        if queued == 0 {
            return Ok(());
        }
        if queued < left {
            // Only progress is an answer here: this loop turns whether the peer lives or not.
            handle.ack();
            left = queued;
        }
        let readable = Some((control.as_fd(), PollFlags::IN));
        match handle.fence.wait(readable, Some(look)) {
            Ok(Woken::Ready) => return Ok(()),
            Ok(Woken::Timeout) => look = (look * 2).min(LOOK_LAST),
            Ok(Woken::Wake) => {}
            Err(e) => return Err(Trouble::from_io(handle, "draining", &e)),
        }
    }
}

/// Over TLS: waits for the peer's own end of the data connection, or its reply. What comes before
/// that are the tickets with which the next data connection resumes this session's TLS; one that
/// was closed over them unread would be reset, and the file be taken for a part. A server may well
/// be at work on the file before it closes: the bound is that of its reply.
pub(super) fn close_tls(session: &Session, wire: &mut Wire) -> Result<(), Trouble> {
    let Some((tls, socket)) = wire.secured() else {
        return Ok(());
    };
    let handle = &session.setup.handle;
    handle.begin(Phase::TlsClose, Some(session.setup.timers.reply));
    let control = session.client.get_ref();
    loop {
        handle.check()?;
        let readable = [
            (socket.as_fd(), PollFlags::IN),
            (control.as_fd(), PollFlags::IN),
        ];
        match handle.fence.wait_any(&readable, None) {
            // Only what is there: the reply may come before the peer's end.
            Ok((Woken::Ready, 0)) => match tls::scrap(tls, socket) {
                Ok(false) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // However it ended: whether the file is whole is told by the reply.
                Ok(true) | Err(_) => return handle.check().map_err(Trouble::from),
            },
            Ok((Woken::Ready, _)) => return Ok(()),
            // No answer to a Ping: whether the path lives is for the vouchers to say.
            Ok(_) => {}
            Err(e) => return Err(Trouble::from_io(handle, "ending TLS", &e)),
        }
    }
}
