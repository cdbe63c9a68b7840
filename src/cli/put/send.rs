//! Sends one file after the other to its end: tried again after a failure, in doubt as the service
//! has it, given up only when it was tried as often as was asked for or the server refuses for
//! good. What a failed or interrupted file leaves on the server is taken away, or kept to be gone
//! on with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use slog::{Logger, info, warn};

use crate::cli::errand::crew::{Crew, Done};
use crate::cli::errand::keep::Keep;
use crate::cli::errand::plan::{Item, ROOT};
use crate::cli::errand::screen::{Screen, told};
use crate::cli::errand::tries::{End, Miss, What, tries};
use crate::cli::errand::{Helped, helped};
use crate::clock;
use crate::core::journey::Stage;
use crate::ftp;
use crate::pulse::Attempt;
use crate::spool::journal::{self, Change, Journal, Key, KnownAttempt};
use crate::spool::{self, Stamp};
use crate::token;
use crate::worker::{JobResult, Sweep, Upload, Work};

/// The mark of one-shot commands in temp names.
const AGENT: &str = "put";
/// Who the journal says that it is about: its folder has told the destination already.
const ROUTE: &str = "put";

/// The sender.
pub struct Sender<'a> {
    crew: Crew,
    keep: Option<&'a Keep>,
    known: HashMap<Arc<str>, Vec<KnownAttempt>>,
    attempts: u32,
    resume: bool,
    /// Attempts that may have left their temp on the server, with the file's size.
    strays: Vec<(Arc<Attempt>, u64)>,
    log: Logger,
}

impl<'a> Sender<'a> {
    /// Tries each file `attempts` times at most; `resume`: parts are gone on with, and kept.
    pub fn new(
        crew: Crew,
        keep: Option<&'a Keep>,
        (attempts, resume): (u32, bool),
        log: Logger,
    ) -> Self {
        Self {
            crew,
            keep,
            known: keep.map(|keep| keep.known.clone()).unwrap_or_default(),
            attempts,
            resume,
            strays: Vec::new(),
            log,
        }
    }

    /// Sends a file.
    pub fn send(&mut self, item: &Item, screen: &mut Screen) -> End<()> {
        screen.begin(&item.shown, item.stamp.size);
        let journal = self.journal(item);
        let mut sending = Sending {
            item,
            settled: None,
            doubts: self.doubts(item, &journal),
            journal,
            strays: &mut self.strays,
        };
        let what = What {
            deed: "sending",
            shown: &item.shown,
        };
        let end = tries(&mut self.crew, self.attempts, what, &self.log, |crew| {
            sending.once(crew, screen)
        });
        if let End::Failed | End::Unreachable | End::Stopped = end {
            screen.end(None);
            let mut doubts = sending.doubts.iter();
            if let Some(open) = doubts.rfind(|a| !a.may_be_abandoned()) {
                warn!(self.log, "it may have arrived"; "file" => &item.shown,
                    "error" => "the answer to its renaming did not come",
                    "next" => format!("look for it there, also as {}", open.temp));
            }
        }
        end.map(|bytes| sending.delivered(screen, bytes))
    }

    /// What an earlier command left of this file. Without `--continue` its parts are only taken
    /// away.
    fn doubts(&mut self, item: &Item, journal: &Journal) -> Vec<Arc<Attempt>> {
        let known = self.known.remove(&item.target).unwrap_or_default();
        let folder = self.crew.folder().clone();
        let known = known
            .into_iter()
            .map(|known| Attempt::known(known, key(item), journal.clone(), None, &folder))
            .map(Arc::new);
        let is_part = |a: &Arc<Attempt>| !self.resume && a.stage() == Stage::Sending;
        let (left, kept): (Vec<_>, Vec<_>) = known.partition(is_part);
        self.strays.extend(left.into_iter().map(|a| (a, 0)));
        kept
    }

    /// Where it stands what is known of a file: only what can be gone on with is worth a wait for
    /// the disk.
    fn journal(&self, item: &Item) -> Journal {
        let large = item.stamp.size > self.crew.route().resume_over && item.nameless.is_none();
        let worth = large || self.known.contains_key(&item.target);
        let kept = self.keep.filter(|_| worth);
        kept.map_or_else(Journal::none, |keep| keep.journal.clone())
    }

    /// The end: what is left on the server is taken away, unless it is kept to be gone on with,
    /// and goodbye is said.
    pub fn leave(mut self) {
        self.crew.release();
        let over = self.crew.route().resume_over;
        let mut temps = Vec::new();
        for (attempt, whole) in std::mem::take(&mut self.strays) {
            match attempt.stage() {
                Stage::Sending if self.resume && whole > over && attempt.is_journalled() => {
                    info!(self.log, "its part stays on the server"; "file" => attempt.path(),
                        "next" => "put --continue goes on with it");
                }
                // Even where it is gone: a server that was stopped may have made it again.
                _ if attempt.abandon() => temps.push(attempt.temp.clone()),
                _ => {}
            }
        }
        if !temps.is_empty() {
            self.sweep(temps);
        }
        self.crew.leave();
    }

    /// Takes temp names away, within bounds; what may be left is told.
    fn sweep(&mut self, temps: Vec<String>) {
        let end = clock::mono() + self.crew.config().shutdown_grace;
        let work = Work::Sweep(Sweep {
            temps: temps.clone(),
        });
        let left = match self.crew.run(work, |_| clock::mono() > end, |_| {}) {
            Done::Told(JobResult::Swept { left }) => left,
            _ => temps,
        };
        for temp in left {
            warn!(self.log, "a temporary file may be left on the server"; "file" => temp,
                "next" => "delete it there");
        }
    }
}

/// A file that is sent.
struct Sending<'a> {
    item: &'a Item,
    /// The version of the last try.
    settled: Option<Stamp>,
    doubts: Vec<Arc<Attempt>>,
    journal: Journal,
    strays: &'a mut Vec<(Arc<Attempt>, u64)>,
}

impl Sending<'_> {
    /// Tries once; the bytes that this try sent.
    fn once(&mut self, crew: &mut Crew, screen: &mut Screen) -> Result<u64, Miss> {
        let (item, route) = (self.item, Arc::clone(crew.route()));
        let settled = match self.settled {
            None => item.stamp,
            Some(before) => version(crew, item).unwrap_or(before),
        };
        self.settled = Some(settled);
        let temps = &route.publishing.temps;
        let temp = temps.temp(&item.target, AGENT, &token::new());
        let attempt = Attempt::new(temp, key(item), self.journal.clone());
        let attempt = Arc::new(attempt.within(crew.folder().clone()));
        if ftp::resumable(&self.doubts, settled, route.resume_over).is_some() {
            // An old session could write beside the new one for as long as it is held.
            crew.release();
        }
        let upload = Upload {
            path: Arc::clone(&item.path),
            target: Arc::clone(&item.target),
            nameless: item.nameless.clone(),
            settled,
            attempt: Arc::clone(&attempt),
            doubts: self.doubts.clone(),
        };
        // What is whole on the server is let go on to its name.
        let late = || matches!(attempt.stage(), Stage::Publishing | Stage::Published);
        let done = crew.run(
            Work::Upload(upload),
            |signalled| signalled && !late(),
            |handle| screen.at(attempt.begins_at() + handle.bytes()),
        );
        match done {
            Done::Told(JobResult::Delivered { source, bytes, .. }) => {
                self.doubts.clear();
                match source {
                    // An earlier command's doubt was about that one.
                    Some(other) if other != settled => Err(Miss::once("an older version arrived")),
                    _ => Ok(bytes),
                }
            }
            done => {
                if attempt.may_leave_temp() {
                    self.strays.push((Arc::clone(&attempt), settled.size));
                    self.doubts.push(attempt);
                }
                self.doubts.retain(|old| old.stage() != Stage::Opened);
                Err(crew.miss(done))
            }
        }
    }

    fn delivered(&self, screen: &mut Screen, bytes: u64) {
        let done = Change::Finished {
            of: key(self.item),
            kept: None,
        };
        // What cannot be written is known still, and asked about, by the next command.
        self.journal.put(done, journal::Done::Nobody);
        let whole = self.settled.map_or(0, |stamp| stamp.size);
        screen.end(Some(&told(whole, bytes)));
    }
}

/// The version that is there now; none while that cannot be told.
fn version(crew: &Crew, item: &Item) -> Option<Stamp> {
    if item.nameless.is_some() {
        return None;
    }
    let (path, disk) = (Arc::clone(&item.path), crew.config().timers.disk);
    let look = move |_: &AtomicU64| spool::stamp_at(ROOT.as_ref(), &path).ok().flatten();
    match helped(crew.stop(), Some(disk), look) {
        Helped::Done(stamp) => stamp,
        Helped::Stuck(_) | Helped::Stopped => None,
    }
}

fn key(item: &Item) -> Key {
    Key {
        route: ROUTE.into(),
        path: Arc::clone(&item.target),
    }
}
