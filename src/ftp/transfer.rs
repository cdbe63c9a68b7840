//! Sends one file to its temp name: passive connection, STOR (after REST where a part is there
//! already), the bytes, drain, final reply.
//! It promises that a returned `Ok` means: all bytes of the version that was opened were sent,
//! the server said 226 (or 250), and SIZE agreed where it was asked.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use slog::info;
use suppaftp::FtpError;

use super::pace::Pace;
use super::publish::take_away;
use super::pump::{close_tls, drain, pump};
use super::resume::from_the_start;
use super::stream;
use super::verify::{Compare, verify};
use super::{Quirk, Session, Trouble};
use crate::clock;
use crate::config::Verify;
use crate::core::journey::Stage;
use crate::core::names::Phase;
use crate::failpoint;
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::sys::fence::Which;

/// How long a reply may follow a broken data connection: it only tells why.
pub const REASON_BOUND: Duration = Duration::from_secs(2);

type Stream = super::stream::Transfer;

/// Sends `file`, whose version is `stamp`, as `attempt`, the bytes before `from` left out: the
/// server has them. Answers how many bytes were sent.
pub fn send(
    session: &mut Session,
    file: &mut File,
    stamp: Stamp,
    attempt: &Attempt,
    from: u64,
) -> Result<u64, Trouble> {
    if session.setup.route.verify == Verify::Hash {
        // Before anything is sent in vain.
        session.hashing()?.map_err(Trouble::NoHash)?;
    }
    put_whole(session, file, stamp, attempt, from, verify)
}

/// The same without a look at the hashes first, and with another comparison after it.
pub(super) fn put_whole(
    session: &mut Session,
    file: &mut File,
    stamp: Stamp,
    attempt: &Attempt,
    from: u64,
    compare: Compare,
) -> Result<u64, Trouble> {
    let (stream, from) = begin(session, attempt, from)?;
    failpoint::at("stor-accepted");
    if from > 0 {
        info!(session.setup.log, "upload resumed"; "from" => from, "bytes" => stamp.size,
            "file" => crate::log::escape(attempt.path()).into_owned(),
            "next" => "the rest is sent");
    }
    let streamed = stream_file(session, stream, file, stamp, from);
    let whole = streamed.is_ok();
    let result = streamed.and_then(|()| {
        failpoint::at("stored");
        if attempt.stored() {
            compare(session, file, stamp, attempt, from > 0)
        } else {
            Err(Trouble::Ended)
        }
    });
    let (name, _) = attempt.storing();
    let large = stamp.size > session.setup.route.resume_over;
    let clear = match &result {
        // It stands under its final name, and may be right: that is decided by who comes next.
        _ if whole && attempt.stage() == Stage::Stored => false,
        // What has come of a large file may be of use: only the transfer was broken off.
        Err(Trouble::Refused { code: 421, .. }) => false,
        Err(Trouble::Refused { code, .. }) => !large || *code >= 500 || *code == 452,
        Err(
            Trouble::Changed
            | Trouble::Source(_)
            | Trouble::SizeDiffers { .. }
            | Trouble::HashDiffers { .. },
        ) => true,
        _ => false,
    };
    if clear && session.usable() && take_away(session, &name)? {
        attempt.enter(Stage::Opened);
    }
    result.map(|()| stamp.size - from)
}

/// Opens the data connection at this byte, or at the first one where the server does not go on
/// there: many refuse only the STOR, and some of them with a code that promises better times.
fn begin(session: &mut Session, attempt: &Attempt, from: u64) -> Result<(Stream, u64), Trouble> {
    match store(session, attempt, from) {
        Err(trouble @ Trouble::Refused { code, .. })
            if from > 0 && session.data.begun() && !matches!(code, 421 | 425 | 426 | 452 | 552) =>
        {
            from_the_start(session, attempt, &trouble.to_string())?;
            let stream = store(session, attempt, 0)?;
            if matches!(code, 500 | 502 | 504) {
                // STOR alone it knows.
                session.learn(Quirk::NoRest, &trouble.to_string());
            }
            Ok((stream, 0))
        }
        Err(trouble @ Trouble::Timeout(_)) if from > 0 => {
            // vsftpd locks what it writes: a stopped old session would make each next STOR wait.
            attempt.begun_in_vain();
            Err(trouble)
        }
        other => other.map(|stream| (stream, from)),
    }
}

/// Opens the data connection and sends STOR; makes the folder and tries again if need be.
fn store(session: &mut Session, attempt: &Attempt, from: u64) -> Result<Stream, Trouble> {
    let folder = attempt
        .temp
        .rsplit_once('/')
        .map(|(folder, _)| folder.to_owned());
    match (store_once(session, attempt, from), folder) {
        (
            Err(Trouble::Refused {
                code: 550 | 551 | 553 | 451,
                ..
            }),
            Some(folder),
        ) if from == 0 => {
            let name = session.wire(&folder)?;
            session.make_folders(&name)?;
            store_once(session, attempt, from)
        }
        (other, _) => other,
    }
}

fn store_once(session: &mut Session, attempt: &Attempt, from: u64) -> Result<Stream, Trouble> {
    session.by_passive(|session| put(session, attempt, from))
}

fn put(session: &mut Session, attempt: &Attempt, from: u64) -> Result<Stream, Trouble> {
    let handle = Arc::clone(&session.setup.handle);
    let (name, stage) = attempt.storing();
    let name = session.wire(&name)?;
    session.offer()?;
    // A part of the file may stand there already, whatever becomes of this STOR.
    let before = attempt.stage();
    // Whoever ends this worker from now on must take it that STOR was sent.
    attempt.enter(stage);
    Trouble::unless_noted(&handle, attempt, before).inspect_err(|_| session.line.withdraw())?;
    session.begin_data_command();
    handle.check()?;
    let position = usize::try_from(from).unwrap_or(usize::MAX);
    let result = session
        .client
        .resume_transfer(position)
        .and_then(|()| session.client.put_with_stream(name));
    handle.ack();
    let begun = session.data.begun();
    let result = result.map_err(|error| {
        session.line.withdraw();
        let verb = if begun { "STOR" } else { "EPSV/PASV" };
        let trouble = match error {
            FtpError::ConnectionError(e) if e.get_ref().is_some_and(|i| i.is::<Trouble>()) => {
                match e.downcast::<Trouble>() {
                    // The data connection failed: STOR was not sent.
                    Ok(trouble) => {
                        attempt.enter(before);
                        trouble
                    }
                    Err(error) => Trouble::from_io(&handle, "the data connection", &error),
                }
            }
            other => {
                let unsecured = session.line.take_trouble();
                unsecured.unwrap_or_else(|| Trouble::from_ftp(&handle, verb, other))
            }
        };
        if !begun || matches!(trouble, Trouble::Refused { code: 500.., .. }) {
            // Never sent, or a clear no: the server made nothing. After a 4xx it may have made the
            // file before it failed.
            attempt.enter(before);
        }
        if handle.check().is_ok() {
            handle.fence.abandon(Which::Data);
        }
        trouble
    });
    result.and_then(|stream| Trouble::unless_stopped(&handle, stream))
}

/// Moves the bytes and waits for the completion reply. On an error the data connection is reset:
/// a clean end would let the server take the part for the whole.
fn stream_file(
    session: &mut Session,
    mut stream: Stream,
    file: &mut File,
    stamp: Stamp,
    from: u64,
) -> Result<(), Trouble> {
    let setup = session.setup.clone();
    let handle = &setup.handle;
    let end = setup.timers.transfer_put.map(|bound| clock::mono() + bound);
    handle.begin_transfer(setup.timers.transfer_put);
    let moved = stream::of(&mut stream)
        .map_err(|e| Trouble::from_io(handle, "the data connection", &e))
        .and_then(|wire| {
            let mut pace = Pace::new(&setup.limit);
            pump(handle, wire, file, from, stamp.size, &mut pace)?;
            unchanged(file, stamp)?;
            failpoint::at("all-moved");
            wire.end_writing()
                .map_err(|e| Trouble::from_io(handle, "ending the data connection", &e))?;
            drain(session, wire.socket(), end)?;
            close_tls(session, wire)
        });
    if let Err(trouble) = moved {
        return Err(break_off(session, stream, "STOR", trouble));
    }
    handle.begin(Phase::FinalReply, Some(setup.timers.reply));
    let result = stream
        .finish()
        .map_err(|e| Trouble::from_ftp(handle, "STOR", e))
        .and_then(|()| Trouble::unless_stopped(handle, ()));
    handle.ack();
    match &result {
        Ok(()) => handle.fence.release(Which::Data),
        Err(_) if handle.check().is_ok() => handle.fence.abandon(Which::Data),
        // Interrupted or ended: the pair stays together for `discard` or the quarantine.
        Err(_) => {}
    }
    result
}

/// The error end of a transfer: reset, then the server's own reason if it gives one soon.
pub(super) fn break_off(
    session: &mut Session,
    stream: Stream,
    verb: &'static str,
    trouble: Trouble,
) -> Trouble {
    let handle = Arc::clone(&session.setup.handle);
    if handle.check().is_err() {
        // Ended or interrupted: dead descriptors are laid already, so the drop cannot block. The
        // sockets are the quarantine's, or reset by `discard`.
        drop(stream);
        return trouble;
    }
    handle.fence.abandon(Which::Data);
    handle.begin(Phase::FinalReply, Some(REASON_BOUND * 2));
    let answered = {
        let control = session.client.get_ref();
        let readable = Some((control.as_fd(), PollFlags::IN));
        matches!(handle.wait(readable, Some(REASON_BOUND)), Ok(Ok(true)))
    };
    if !answered {
        session.broken = true;
        handle.fence.abandon(Which::Control);
        drop(stream);
        return trouble;
    }
    let reason = stream
        .finish()
        .map_err(|e| Trouble::from_ftp(&handle, verb, e));
    match (reason, trouble) {
        // Our own reasons outrank what the server makes of the reset.
        (Err(lost @ (Trouble::Ended | Trouble::Timeout(_) | Trouble::Lost { .. })), ours) => {
            session.broken = true;
            if matches!(ours, Trouble::Lost { .. }) {
                lost
            } else {
                ours
            }
        }
        (_, ours @ (Trouble::Source(_) | Trouble::Changed)) => ours,
        (Err(theirs), _) => theirs,
        (Ok(()), ours) => {
            // A 226 for what we broke off: believe nothing more of this session.
            session.broken = true;
            ours
        }
    }
}

/// Whether the open source is still the version that was sent.
pub(super) fn unchanged(file: &File, stamp: Stamp) -> Result<(), Trouble> {
    match crate::spool::stamp_of(file) {
        Ok(now) if now == stamp => Ok(()),
        Ok(_) => Err(Trouble::Changed),
        Err(error) => Err(Trouble::Source(format!(
            "looking at the source failed: {error}"
        ))),
    }
}
