//! Receives one file after the other to its end: asked for its version, received by the worker,
//! tried again after a failure. What a failed or interrupted file leaves here is taken away, or
//! kept to be gone on with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use slog::{Logger, error, info, warn};

use super::walk;
use crate::cli::EXIT_FAILED;
use crate::cli::errand::crew::{Crew, Done};
use crate::cli::errand::keep::Keep;
use crate::cli::errand::remember;
use crate::cli::errand::screen::{Screen, told};
use crate::cli::errand::tries::{End, Miss, What, tries};
use crate::core::arrivals::Version;
use crate::core::journey::Stage;
use crate::pulse::{Attempt, Folder};
use crate::spool::Stamp;
use crate::spool::inbox::Inbox;
use crate::spool::journal::{self, Change, Journal, Key};
use crate::token;
use crate::worker::{Answer, Ask, Download, JobResult, Work};

/// The mark of one-shot commands in temp names.
const AGENT: &str = "get";
/// Who the journal says that it is about: its folder has told the places already.
const ROUTE: &str = "get";

/// A file on the server.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Its path below the remote folder.
    pub path: Arc<str>,
    /// Its final name below the local folder.
    pub target: Arc<str>,
    /// Its version, where a listing has told exactly.
    pub version: Option<Version>,
}

impl Remote {
    /// One whose version is not known yet.
    pub fn new(path: impl Into<Arc<str>>, target: impl Into<Arc<str>>) -> Self {
        Self {
            path: path.into(),
            target: target.into(),
            version: None,
        }
    }
}

/// The fetcher.
pub struct Fetcher {
    crew: Crew,
    /// Opened with the first large file.
    keep: Option<Result<Keep, String>>,
    attempts: u32,
    resume: bool,
    /// Attempts that may have left their temp here, with the file's size.
    strays: Vec<(Arc<Attempt>, u64)>,
    log: Logger,
}

impl Fetcher {
    /// Tries each file `attempts` times at most.
    pub fn new(crew: Crew, attempts: u32, resume: bool, log: Logger) -> Self {
        Self {
            crew,
            keep: None,
            attempts,
            resume,
            strays: Vec::new(),
            log,
        }
    }

    /// Downloads a file.
    pub fn fetch(&mut self, remote: &Remote, screen: &mut Screen) -> End<()> {
        screen.begin(
            &remote.path,
            remote.version.map_or(0, |version| version.size),
        );
        let what = What {
            deed: "receiving",
            shown: &remote.path,
        };
        let mut receiving = Receiving {
            remote,
            doubts: None,
            strays: &mut self.strays,
            size: 0,
        };
        let (keep, resume) = (&mut self.keep, self.resume);
        let end = tries(&mut self.crew, self.attempts, what, &self.log, |crew| {
            receiving.once(crew, keep, resume, screen)
        });
        if let End::Failed | End::Unreachable | End::Stopped = end {
            screen.end(None);
        }
        end.map(|bytes| {
            if let Some(Ok(keep)) = keep {
                let done = Change::Finished {
                    of: key(remote),
                    kept: None,
                };
                // What cannot be written is known still, and asked about, by the next command.
                keep.journal.put(done, journal::Done::Nobody);
            }
            screen.end(Some(&told(receiving.size, bytes)));
        })
    }

    /// Downloads the remote folder with all that is in it.
    pub fn fetch_all(&mut self, screen: &mut Screen) -> ExitCode {
        let found = match walk::walk(&mut self.crew, self.attempts, &self.log) {
            End::Done(found) => found,
            End::Failed | End::Unreachable | End::Stopped => return ExitCode::from(EXIT_FAILED),
        };
        for (shown, why) in &found.refused {
            error!(self.log, "it is not downloaded"; "file" => shown, "error" => why);
        }
        for shown in &found.left_out {
            info!(self.log, "left out"; "file" => shown, "error" => "no regular file");
        }
        let sizes = found.files.iter().filter_map(|file| file.version);
        screen.expect(found.files.len(), sizes.map(|version| version.size).sum());
        let (mut got, mut failed) = (0, 0);
        for remote in &found.files {
            match self.fetch(remote, screen) {
                End::Done(()) => got += 1,
                End::Failed => failed += 1,
                End::Unreachable | End::Stopped => break,
            }
        }
        screen.clear();
        let left = found.files.len() - got - failed;
        let failed = failed + found.refused.len() + found.unread;
        let rest = match left {
            0 => String::new(),
            left => format!(", {left} not received"),
        };
        screen.result(&format!("{got} received, {failed} failed{rest}"));
        match failed + left {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(EXIT_FAILED),
        }
    }

    /// The end: parts are taken away, unless they are kept to be gone on with, and goodbye is said.
    pub fn leave(mut self) {
        let route = Arc::clone(self.crew.route());
        let mut temps = Vec::new();
        for (attempt, whole) in std::mem::take(&mut self.strays) {
            match attempt.stage() {
                Stage::Sending
                    if self.resume && whole > route.resume_over && attempt.is_journalled() =>
                {
                    info!(self.log, "its part stays here"; "file" => attempt.path(),
                        "next" => "get --continue goes on with it");
                }
                _ if attempt.abandon() => temps.push(attempt.temp.clone()),
                _ => {}
            }
        }
        if !temps.is_empty() {
            self.discard(route.spool.clone(), temps);
        }
        self.crew.leave();
    }

    /// A signal that came must not leave them here, so it is no reason to stop.
    fn discard(&self, folder: PathBuf, temps: Vec<String>) {
        let (tell, told) = std::sync::mpsc::channel();
        let work = move || {
            let gone = Inbox::open(&folder)
                .and_then(|inbox| temps.iter().try_for_each(|temp| inbox.discard(temp)));
            // Nobody may be waiting any more.
            let _ = tell.send(gone);
        };
        let started = std::thread::Builder::new().name("local".into()).spawn(work);
        let bound = self.crew.config().shutdown_grace;
        let why = match started.map(|_| told.recv_timeout(bound)) {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) | Err(error) => error.to_string(),
            Ok(Err(_)) => "the local disk does not answer".into(),
        };
        warn!(self.log, "temporary files may be left here"; "error" => why,
            "next" => "delete what ends in .part and bears its name");
    }
}

fn key(remote: &Remote) -> Key {
    Key {
        route: ROUTE.into(),
        path: Arc::clone(&remote.path),
    }
}

/// A file that is received.
struct Receiving<'a> {
    remote: &'a Remote,
    /// None before the first try.
    doubts: Option<Vec<Arc<Attempt>>>,
    strays: &'a mut Vec<(Arc<Attempt>, u64)>,
    /// Of the version of the last try.
    size: u64,
}

impl Receiving<'_> {
    /// Tries once; the bytes that this try received.
    fn once(
        &mut self,
        crew: &mut Crew,
        keep: &mut Option<Result<Keep, String>>,
        resume: bool,
        screen: &mut Screen,
    ) -> Result<u64, Miss> {
        let route = Arc::clone(crew.route());
        let version = self.version(crew)?;
        self.size = version.size;
        screen.is_of(version.size);
        let journal = self.journal(crew, keep, resume)?;
        let mut doubts = match self.doubts.take() {
            Some(doubts) => doubts,
            None => self.known(keep, &journal, resume),
        };
        let temps = &route.publishing.temps;
        let temp = temps.temp(&self.remote.target, AGENT, &token::new());
        let attempt = Arc::new(Attempt::new(temp, key(self.remote), journal));
        let download = Download {
            path: Arc::clone(&self.remote.path),
            target: Arc::clone(&self.remote.target),
            version: Stamp::of_remote(version),
            attempt: Arc::clone(&attempt),
            doubts: doubts.clone(),
            got: None,
        };
        // What is whole here is let go on to its name.
        let late = || matches!(attempt.stage(), Stage::Publishing | Stage::Published);
        let done = crew.run(
            Work::Download(download),
            |signalled| signalled && !late(),
            |handle| screen.at(attempt.begins_at() + handle.bytes()),
        );
        if let Done::Told(JobResult::Got(got)) = done {
            return Ok(got.bytes);
        }
        if attempt.may_leave_temp() {
            self.strays.push((Arc::clone(&attempt), version.size));
            doubts.push(attempt);
        }
        doubts.retain(|old| old.stage() != Stage::Opened);
        self.doubts = Some(doubts);
        Err(crew.miss(done))
    }

    /// The version to receive: as it was listed, or as the server has it now.
    fn version(&self, crew: &mut Crew) -> Result<Version, Miss> {
        if let Some(version) = self.remote.version.filter(|_| self.doubts.is_none()) {
            return Ok(version);
        }
        let work = Work::Ask(Ask::File(self.remote.path.to_string()));
        match crew.run(work, |signalled| signalled, |_| {}) {
            Done::Told(JobResult::Answered(Answer::File(Some(version)))) => Ok(version),
            Done::Told(JobResult::Answered(Answer::File(None))) => {
                let why = "there is no such file on the server (-r downloads folders)";
                Err(Miss::lasting(why))
            }
            done => Err(crew.miss(done)),
        }
    }

    /// Where it stands what is known of it: only what can be gone on with is worth a wait for the
    /// disk.
    fn journal(
        &self,
        crew: &Crew,
        keep: &mut Option<Result<Keep, String>>,
        resume: bool,
    ) -> Result<Journal, Miss> {
        let route = crew.route();
        if self.size <= route.resume_over {
            return Ok(Journal::none());
        }
        let kept = keep.get_or_insert_with(|| {
            let (server, here) = (&route.server, route.spool.display());
            let at = format!("{ROUTE} {}/{} {here}", server.key(), server.folder);
            remember(crew.stop(), crew.config(), &at)
        });
        match kept {
            Ok(keep) => Ok(keep.journal.clone()),
            Err(why) if resume => Err(Miss::lasting(format!("--continue: {why}"))),
            Err(_) => Ok(Journal::none()),
        }
    }

    /// What an earlier command left of this file. Without `--continue` its parts are only taken
    /// away.
    fn known(
        &mut self,
        keep: &mut Option<Result<Keep, String>>,
        journal: &Journal,
        resume: bool,
    ) -> Vec<Arc<Attempt>> {
        let Some(Ok(keep)) = keep else {
            return Vec::new();
        };
        let known = keep.known.remove(&self.remote.path).unwrap_or_default();
        let folder = Folder::default();
        let known = known
            .into_iter()
            .map(|known| Attempt::known(known, key(self.remote), journal.clone(), None, &folder))
            .map(Arc::new);
        let is_part = |a: &Arc<Attempt>| !resume && a.stage() == Stage::Sending;
        let (left, kept): (Vec<_>, Vec<_>) = known.partition(is_part);
        self.strays.extend(left.into_iter().map(|a| (a, 0)));
        kept
    }
}
