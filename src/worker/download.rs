//! Downloads one file: received into a temp file beside its final name, compared, synced, renamed;
//! then, once the journal has it, the remote file is deleted or archived. Each step that cannot be
//! taken back stands in the journal before: `Publishing` before the rename, the delivery before
//! anything is done on the server. So wherever a life ends, the next one knows whether the file is
//! here: its temp name is gone if and only if it was renamed.

use std::fs::File;
use std::io::Seek;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use slog::info;

use super::failure::{Failure, failed};
use super::job::{Result as JobResult, ensure, escape};
use super::place::{Here, Place, Stopped, judge};
use crate::clock::{self, Mono};
use crate::config::{After, OnConflict, Verify};
use crate::core::names::Phase;
use crate::failpoint;
use crate::ftp::{self, Session, Setup, Trouble};
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::spool::inbox::Inbox;
use crate::spool::journal::{Change, Key};

/// A file to download.
#[derive(Debug, Clone)]
pub struct Download {
    /// Path below the remote folder.
    pub path: Arc<str>,
    /// The final name, below the local folder.
    pub target: Arc<str>,
    /// The remote version that was found settled.
    pub version: Stamp,
    /// The attempt to make.
    pub attempt: Arc<Attempt>,
    /// Earlier attempts without a clear result, oldest first.
    pub doubts: Vec<Arc<Attempt>>,
    /// It is here in this version: only the remote file has to be finished.
    pub got: Option<Stamp>,
}

/// A file that is here.
#[derive(Debug)]
pub struct Got {
    /// The remote version that it is.
    pub version: Stamp,
    /// Bytes received by this job.
    pub bytes: u64,
    /// How long the job took.
    pub took: Duration,
    /// The final name; none where it was skipped.
    pub name: Option<String>,
    /// Why the remote file is not finished yet, if so.
    pub left: Option<Failure>,
}

pub(super) fn run(
    setup: &Setup,
    session: &mut Option<Session>,
    download: &Download,
    began: Mono,
) -> Result<JobResult, Trouble> {
    let (version, bytes, name) = match download.got {
        Some(version) => (version, 0, Some(download.target.to_string())),
        None => {
            let here = match take(setup, session, download) {
                Ok(here) => here,
                Err(Stopped { trouble, phase }) => {
                    let phase = phase.unwrap_or_else(|| setup.handle.phase());
                    return Ok(JobResult::Failed(failed(session, trouble, phase)));
                }
            };
            note(setup, download, &here)?;
            failpoint::at("got-stands");
            here
        }
    };
    let left = match finish(setup, session, &download.path, version) {
        Ok(()) => None,
        Err(Trouble::Ended) => return Err(Trouble::Ended),
        Err(trouble) => {
            let phase = setup.handle.phase();
            Some(failed(session, trouble, phase))
        }
    };
    failpoint::at("remote-finished");
    Ok(JobResult::Got(Box::new(Got {
        version,
        bytes,
        took: clock::mono().saturating_sub(began),
        name,
        left,
    })))
}

/// It stands in the journal before the server is told to give the file up.
fn note(setup: &Setup, download: &Download, (version, _, name): &Here) -> Result<(), Trouble> {
    let change = Change::Delivered {
        of: Key {
            route: setup.route.name.as_str().into(),
            path: Arc::clone(&download.path),
        },
        sent: *version,
        at: clock::unix(),
        name: name.clone().filter(|name| **name != *download.target),
    };
    let written = setup.handle.write(&setup.journal, change)?;
    written.map_err(|_| Trouble::Unwritten)
}

/// Does with the remote file what the route says, if it is still the version that is here.
fn finish(
    setup: &Setup,
    session: &mut Option<Session>,
    path: &str,
    version: Stamp,
) -> Result<(), Trouble> {
    let route = &setup.route;
    if route.after == After::Keep {
        return Ok(());
    }
    let session = ensure(setup, session)?;
    match session.version_of(path)? {
        // Somebody was faster, or an earlier life did it.
        None => return Ok(()),
        Some(now) if !now.agrees(&version.to_remote()) => {
            info!(setup.log, "the remote file changed after it was downloaded";
                "file" => escape(path), "next" => "the new one stays and is downloaded when it has settled");
            return Ok(());
        }
        Some(_) => {}
    }
    let done = match &route.after {
        After::Archive(folder) => {
            let place = format!("{}/{path}", folder.display());
            session.archive(path, &place).map(drop)
        }
        After::Delete | After::Keep => session.delete(path),
    };
    match done {
        Err(Trouble::Refused { code: 550, .. }) if session.version_of(path)?.is_none() => Ok(()),
        done => done,
    }
}

fn take(
    setup: &Setup,
    session: &mut Option<Session>,
    download: &Download,
) -> Result<Here, Stopped> {
    let handle = &setup.handle;
    handle.begin(Phase::LocalFile, None);
    let inbox = Inbox::open(&setup.route.spool);
    handle.check()?;
    let unusable = |e| Trouble::Source(format!("the local folder cannot be used: {e}"));
    let place = Place {
        setup,
        inbox: inbox.map_err(unusable)?,
        path: &download.target,
    };
    let wanted = place.inbox.stamp(download.version);
    let mut part = None;
    for old in &download.doubts {
        if let Some(here) = place.settle(old, wanted, &mut part)? {
            return Ok(here);
        }
    }
    let size = wanted.size;
    if let Some(theirs) = place.size_of(&download.target)?
        && matches!(
            setup.route.publishing.on_conflict,
            OnConflict::Skip | OnConflict::Fail
        )
    {
        judge(&setup.route, &download.target, size, theirs)?;
        return Ok((download.version, 0, None));
    }
    let held = place.hold()?;
    let standing = ensure(setup, session)?;
    if setup.route.verify == Verify::Hash {
        // Before anything is received in vain.
        standing.hashing()?.map_err(Trouble::NoHash)?;
    }
    let attempt = &download.attempt;
    let (mut file, from) = place.open(attempt, wanted, part)?;
    let received = receive(standing, download, &mut file, from)
        .and_then(|from| compare_anew(setup, session, download, &file, from));
    let received = match received {
        Ok(from) => size - from,
        Err(trouble) => return Err(place.give_up(attempt, &file, size, trouble)),
    };
    handle.begin(Phase::LocalFile, None);
    if let Some(modified) = download.version.to_remote().modified {
        let time = UNIX_EPOCH + Duration::from_secs(modified.max(0).unsigned_abs());
        // It is only for people: a file system without it keeps the file all the same.
        let _ = file.set_modified(time);
    }
    let synced = file.sync_all();
    handle.check()?;
    if let Err(error) = synced {
        let trouble = Trouble::Source(format!("writing the file failed: {error}"));
        return Err(place.give_up(attempt, &file, size, trouble));
    }
    failpoint::at("received");
    let name = place.publish(attempt, size)?;
    drop(held);
    Ok((download.version, received, name))
}

/// Receives the rest, or all of it where the server does not go on there. Answers where it began.
fn receive(
    session: &mut Session,
    download: &Download,
    file: &mut File,
    from: u64,
) -> Result<u64, Trouble> {
    let (path, size) = (&download.path, download.version.size);
    let received = match ftp::receive(session, path, size, from, file) {
        Err(Trouble::Refused {
            code: 500..=599, ..
        }) if from > 0 => {
            download.attempt.begin_anew();
            let emptied = file.set_len(0).and_then(|()| file.rewind());
            emptied.map_err(|e| Trouble::Source(format!("writing the file failed: {e}")))?;
            ftp::receive(session, path, size, 0, file).map(|()| 0)
        }
        received => received.map(|()| from),
    };
    match received {
        Err(trouble) => Err(refused(session, download, trouble)?),
        received => received,
    }
}

/// What a refusal means: the file may be gone, or be another one by now.
fn refused(
    session: &mut Session,
    download: &Download,
    trouble: Trouble,
) -> Result<Trouble, Trouble> {
    let Trouble::Refused { code: 550, .. } = trouble else {
        return Ok(trouble);
    };
    Ok(match session.version_of(&download.path)? {
        None => Trouble::Vanished,
        Some(now) if !now.agrees(&download.version.to_remote()) => Trouble::Changed,
        Some(_) => trouble,
    })
}

/// The same as [`compare`], by a session of its own where the server ends each with its file.
fn compare_anew(
    setup: &Setup,
    session: &mut Option<Session>,
    download: &Download,
    file: &File,
    from: u64,
) -> Result<u64, Trouble> {
    match compare(ensure(setup, session)?, download, file, from) {
        Err(Trouble::Refused { code: 421, .. } | Trouble::Lost { .. }) => {
            if let Some(over) = session.take() {
                over.discard();
            }
            compare(ensure(setup, session)?, download, file, from)
        }
        compared => compared,
    }
}

/// Compares what was received with what the server has. Answers `from`.
fn compare(
    session: &mut Session,
    download: &Download,
    file: &File,
    from: u64,
) -> Result<u64, Trouble> {
    let path = &download.path;
    if session.verifies() || from > 0 {
        // Gone meanwhile: what is here is whole, and may be all that is left of it.
        let now = session.version_of(path)?;
        if now.is_some_and(|now| !now.agrees(&download.version.to_remote())) {
            return Err(Trouble::Changed);
        }
        if now.is_some() {
            session.verify_received(path, file, from > 0)?;
        }
    }
    Ok(from)
}
