//! One job of a worker: an upload with its doubts resolved first, a download, or the sweep of old
//! temp names.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use slog::{debug, info};

use super::ask::{Answer, Ask};
use super::download::{Download, Got};
use super::failure::{Failure, failed};
use super::lock::{Retries, hold};
use super::poll::{Poll, Polled};
use super::tidy::{Look, Seen, Sweep};
use crate::clock::{self, Mono};
use crate::config::{Route, Timers};
use crate::core::journey::Stage;
use crate::core::names::Phase;
use crate::failpoint;
use crate::ftp::{self, Landed, Placed, Quirks, Resolved, Session, Settled, Setup, Trouble};
use crate::pulse::{Attempt, Point};
use crate::spool::{self, SourceError, Stamp};

/// What the daemon gives to a worker. It carries its epoch: a job of another life is not done.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number, unique within the service.
    pub id: u64,
    /// The epoch it is meant for.
    pub epoch: u64,
    /// The settings it is done under, whatever they become meanwhile.
    pub terms: Arc<Terms>,
    /// What is known of the destination.
    pub quirks: Quirks,
    /// What to do.
    pub work: Work,
}

/// The settings of a route's jobs.
#[derive(Debug, PartialEq)]
pub struct Terms {
    /// The route.
    pub route: Arc<Route>,
    /// The bounds.
    pub timers: Timers,
    /// How long the detection of a dead path may take.
    pub detection: Duration,
    /// How long a server may still do what an unanswered command said.
    pub hold: Duration,
}

/// The kinds of jobs.
#[derive(Debug, Clone)]
pub enum Work {
    /// Deliver a file.
    Upload(Upload),
    /// List the remote folder.
    Poll(Poll),
    /// Download a file.
    Download(Download),
    /// Ask something about the server.
    Ask(Ask),
    /// Take old temp names away.
    Sweep(Sweep),
    /// Look for old temp files.
    Look(Look),
    /// Give the session up: another slot needs its seat at the destination.
    Part,
}

/// A file to deliver.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Path below the spool.
    pub path: Arc<str>,
    /// The final name, below the remote folder.
    pub target: Arc<str>,
    /// The source itself, where it has no name.
    pub nameless: Option<Arc<File>>,
    /// The version that the collector found settled.
    pub settled: Stamp,
    /// The attempt to make; its token is noted before the job is given.
    pub attempt: Arc<Attempt>,
    /// Earlier attempts without a clear result, oldest first.
    pub doubts: Vec<Arc<Attempt>>,
}

impl Upload {
    /// Opens the source, whichever version it is.
    pub(super) fn open(&self, setup: &Setup) -> std::result::Result<(File, Stamp), SourceError> {
        let Some(file) = &self.nameless else {
            return spool::open_source(&setup.route.spool, &self.path);
        };
        // Opened anew: a duplicate would share its position.
        let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let stamp = spool::stamp_of(&file)?;
        Ok((file, stamp))
    }
}

/// What became of a job.
#[derive(Debug)]
pub struct Report {
    /// The slot.
    pub slot: usize,
    /// The epoch of the worker.
    pub epoch: u64,
    /// The job's number.
    pub job: u64,
    /// How it ended.
    pub result: Result,
}

/// How a job ended.
#[derive(Debug)]
pub enum Result {
    /// The file stands under its final name.
    Delivered {
        /// The version that was sent, where it is known.
        source: Option<Stamp>,
        /// Bytes sent by this job.
        bytes: u64,
        /// How long the job took.
        took: Duration,
        /// The final name, below the remote folder.
        name: String,
    },
    /// The final name exists on the server, and the route skips such files.
    Skipped {
        /// The version that is not needed, where it is known.
        source: Option<Stamp>,
    },
    /// The sweep came to its end; these names may still be there.
    Swept {
        /// What to sweep again.
        left: Vec<String>,
    },
    /// The look came to its end.
    Looked(Seen),
    /// The remote folder was listed.
    Polled(Box<Polled>),
    /// The file is here.
    Got(Box<Got>),
    /// The question is answered.
    Answered(Answer),
    /// The session is given up.
    Parted,
    /// It failed.
    Failed(Failure),
}

/// Does a job. The session is kept for the next one, unless it cannot be trusted any more.
pub fn run(setup: &Setup, slot: usize, session: &mut Option<Session>, job: Job) -> Report {
    let began = clock::mono();
    setup.handle.begin_job();
    let result = if job.epoch == setup.handle.epoch {
        run_work(setup, session, job.work, began)
    } else {
        Err(Trouble::Ended)
    };
    let phase = setup.handle.phase();
    let result = match result {
        Ok(done) => done,
        Err(trouble) => Result::Failed(failed(session, trouble, phase)),
    };
    if session.as_ref().is_some_and(|s| !s.usable())
        && let Some(session) = session.take()
    {
        session.discard();
    }
    setup.handle.note_session(session.is_some());
    Report {
        slot,
        epoch: job.epoch,
        job: job.id,
        result,
    }
}

fn run_work(
    setup: &Setup,
    session: &mut Option<Session>,
    work: Work,
    began: Mono,
) -> std::result::Result<Result, Trouble> {
    match work {
        Work::Upload(upload) => {
            let end = deliver(setup, session, &upload)?;
            let took = clock::mono().saturating_sub(began);
            Ok(match end {
                End::Delivered(landed, bytes) => Result::Delivered {
                    source: landed.source,
                    bytes,
                    took,
                    name: landed.name,
                },
                End::Skipped(source) => Result::Skipped { source },
            })
        }
        Work::Poll(poll) => poll.run(setup, session),
        Work::Download(download) => super::download::run(setup, session, &download, began),
        Work::Ask(ask) => ask.run(setup, ensure(setup, session)?),
        Work::Sweep(sweep) => sweep.run(ensure(setup, session)?),
        Work::Look(look) => look.run(setup, ensure(setup, session)?),
        Work::Part => {
            if let Some(session) = session.take() {
                session.quit();
            }
            Ok(Result::Parted)
        }
    }
}

pub(super) fn ensure<'a>(
    setup: &Setup,
    session: &'a mut Option<Session>,
) -> std::result::Result<&'a mut Session, Trouble> {
    let spent = session.take_if(|session| session.is_spent());
    if session.is_none() {
        *session = Some(match spent {
            Some(spent) => spent.renew()?,
            None => Session::open(setup)?,
        });
        setup.handle.note_session(true);
        debug!(setup.log, "session opened"; "server" => setup.route.server.key());
    }
    // Just filled if it was empty.
    session.as_mut().ok_or(Trouble::Ended)
}

/// How an upload ended well.
pub(super) enum End {
    /// It stands there; bytes that this job sent.
    Delivered(Landed, u64),
    /// It is not needed; its version, where it is known.
    Skipped(Option<Stamp>),
}

/// Delivers a file: it is published, then marked where the route has markers.
fn deliver(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
) -> std::result::Result<End, Trouble> {
    let end = publish(setup, session, upload)?;
    let attempts = || upload.doubts.iter().chain([&upload.attempt]);
    if let End::Delivered(landed, _) = &end
        && setup.route.publishing.markers.is_some()
        && attempts().all(|a| a.stage() != Stage::Marked)
    {
        let done = ftp::published(&upload.doubts).unwrap_or(&upload.attempt);
        ensure(setup, session)?.mark(done, landed)?;
    }
    Ok(end)
}

fn publish(
    setup: &Setup,
    session: &mut Option<Session>,
    upload: &Upload,
) -> std::result::Result<End, Trouble> {
    let target: &str = &upload.target;
    if let Some(done) = ftp::published(&upload.doubts) {
        // Its 250 was read after all: nothing is asked of the server.
        return Ok(End::Delivered(ftp::landed(done, target), 0));
    }
    upload.attempt.may_delete_like(&upload.doubts);
    let keep = ftp::resumable(&upload.doubts, upload.settled, setup.route.resume_over)
        .filter(|_| !setup.route.publishing.direct);
    if upload.doubts.iter().any(|a| a.stage() != Stage::Opened) {
        let session = ensure(setup, session)?;
        match ftp::resolve(session, &upload.doubts, &upload.attempt, target, keep)? {
            Resolved::Delivered(landed) => {
                info!(setup.log, "in doubt: it had been delivered"; "file" => escape(target),
                    "next" => "the source is finished");
                return Ok(End::Delivered(landed, 0));
            }
            Resolved::Skipped(source) => return Ok(End::Skipped(source)),
            // It was asked about another version, and tells of that one for good.
            Resolved::Gone if upload.attempt.source().is_some_and(|s| s != upload.settled) => {
                return Err(Trouble::InDoubt);
            }
            Resolved::Open => return Err(Trouble::InDoubt),
            Resolved::Gone => {}
        }
    }
    let torn = match super::direct::settle(setup, session, upload)? {
        Settled::Delivered(landed) => return Ok(End::Delivered(landed, 0)),
        Settled::Torn(attempt) => attempt,
    };
    if setup.route.publishing.direct {
        return super::direct::deliver(setup, session, upload, torn);
    }
    // The source is opened before a session is: what is not there needs none.
    let opened = open_source(setup, upload);
    if matches!(opened, Err(Trouble::Changed | Trouble::Vanished)) {
        if keep.is_some() {
            ftp::leave_all(ensure(setup, session)?, &upload.doubts)?;
        }
        super::direct::leave_parts(setup, &upload.doubts);
    }
    let (mut file, stamp) = opened?;
    let session = ensure(setup, session)?;
    session.may_be_marked(target)?;
    upload.attempt.note_source(stamp);
    if torn.is_none() && session.skips_at_once(target, stamp.size)? {
        return Ok(End::Skipped(Some(stamp)));
    }
    let from = match keep {
        Some(version) => ftp::take_up(session, &upload.doubts, &upload.attempt, version)?,
        None => 0,
    };
    let sent = ftp::send(session, &mut file, stamp, &upload.attempt, from)?;
    if let Err(trouble) = still_there(setup, upload, stamp) {
        // Never published: what was sent is not what stands in the spool any more.
        if ftp::take_away(session, &upload.attempt.temp)? {
            upload.attempt.enter(Stage::Opened);
        }
        return Err(trouble);
    }
    failpoint::at("verified");
    let (source, torn) = (Some(stamp), torn.as_deref());
    Ok(match session.publish(&upload.attempt, target, torn)? {
        Placed::As(name) => End::Delivered(Landed { source, name }, sent),
        Placed::Skipped => End::Skipped(source),
    })
}

/// Opens the source under shared locks (S2): whoever holds it exclusively is still at work.
pub(super) fn open_source(
    setup: &Setup,
    upload: &Upload,
) -> std::result::Result<(File, Stamp), Trouble> {
    let handle = &setup.handle;
    handle.begin(Phase::LocalFile, None);
    handle.pass(Point::Source);
    let opened = upload.open(setup).map_err(source_trouble);
    handle.check()?;
    let (file, _) = opened?;
    let retries = Retries {
        count: setup.timers.read_lock_retries,
        pause: setup.timers.read_lock_interval,
    };
    hold(setup, ("the source", &upload.path), retries, || {
        spool::locked::share(&file)
    })?;
    handle.begin(Phase::LocalFile, None);
    let unseen = |e: std::io::Error| Trouble::Source(format!("looking at the source failed: {e}"));
    // Under the lock: who held it may have written meanwhile, or taken the marker back.
    let stamp = spool::stamp_of(&file).map_err(unseen)?;
    let released = spool::marker::releases(&setup.route, &upload.path).map_err(unseen)?;
    handle.check()?;
    if stamp != upload.settled || !released {
        return Err(Trouble::Changed);
    }
    Ok((file, stamp))
}

/// Whether the version that was sent is still the one that stands in the spool.
fn still_there(setup: &Setup, upload: &Upload, sent: Stamp) -> std::result::Result<(), Trouble> {
    setup.handle.begin(Phase::LocalFile, None);
    let now = match &upload.nameless {
        Some(file) => spool::stamp_of(file).map(Some),
        None => spool::stamp_at(&setup.route.spool, &upload.path),
    };
    setup.handle.check()?;
    match now {
        Ok(Some(now)) if now == sent => Ok(()),
        Ok(Some(_)) => Err(Trouble::Changed),
        Ok(None) => Err(Trouble::Vanished),
        Err(error) => Err(Trouble::Source(format!(
            "looking at the source failed: {error}"
        ))),
    }
}

fn source_trouble(error: SourceError) -> Trouble {
    match error {
        SourceError::Vanished => Trouble::Vanished,
        other => Trouble::Source(crate::log::chain(&other)),
    }
}

pub(super) fn escape(text: &str) -> String {
    crate::log::escape(text).into_owned()
}
