//! All blocking work on one route's spool, as a plain struct that one thread turns: scans, the
//! looks at single files, offers within the daemon's credit, the end of delivered sources.
//! Owns what is known of the spool; decides nothing about uploads. Bounded whatever the spool
//! holds: 10,000 files in order, 20,000 unsettled, the rest is counted and read when its turn comes.
//! Promises that a file is offered once until the daemon gives it back.

mod ends;
mod events;
mod kept;
mod looks;
mod offers;
mod pass;
mod renew;
mod scans;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use slog::{Logger, o, warn};
use tokio::sync::oneshot;

use self::kept::Comparison;
use self::pass::{Count, Pass};
use self::scans::RESCAN;
use super::dead::Tally;
use super::finish::Finished;
use super::folder::Folder;
use super::lock::FolderLock;
use super::memory::Memory;
use super::said::{Said, Say};
use super::scan::Totals;
use super::settle::Settle;
use super::still::Still;
use super::taking::Taking;
use super::waiting::{BATCH, Waiting};
use super::watch::Inlet;
use super::{Candidate, Clock, Now, Stamp};
use crate::clock::Mono;
use crate::config::Route;
use crate::report::Retry;
use crate::sys::file;

/// Unsettled files known at most: two batches, so that a full batch can settle while producers
/// go on.
const UNSETTLED_MAX: usize = 2 * BATCH;

/// Settled files in hand at most: a batch, and the one that tells that there are more.
const IN_HAND_MAX: usize = BATCH + 1;

/// Files at the daemon at most, whatever it asks for.
pub const CREDIT_MAX: usize = 20_000;

/// Files in one `Found`.
pub const FOUND_MAX: usize = 256;

/// What the daemon wants of a route.
#[derive(Debug)]
pub enum Command {
    /// So many more files may be offered.
    Want(usize),
    /// It was delivered in this version: do with the source what the route says.
    Finish {
        /// Path below the spool.
        path: String,
        /// The version that was sent, or given up.
        sent: Stamp,
        /// It was not delivered: it goes to the dead letters with this story.
        story: Option<Arc<str>>,
        /// Comes back with the outcome.
        token: u64,
    },
    /// The route has new settings, and the same spool.
    Renew(Arc<Route>),
    /// These are not in work: they are offered again if they are still to be sent.
    GiveBack(Vec<Candidate>),
    /// Dead letters go back into the spool: those named, or all.
    Retry {
        /// Their paths below the folder of dead letters.
        files: Vec<String>,
        /// Who asked.
        answer: oneshot::Sender<Result<Retry, String>>,
    },
    /// The daemon has no record of it any more; it may be offered again after settling anew.
    Forget {
        /// Path below the spool.
        path: String,
    },
}

/// What is known of a spool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// What is wrong with the folder, if anything.
    pub problem: Option<String>,
    /// Files waiting, those at the daemon included.
    pub files: u64,
    /// Those of them that are not settled yet, or are open for writing.
    pub settling: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest modification time among them, Unix seconds.
    pub oldest_mtime: Option<f64>,
    /// Files among the dead letters.
    pub dead_letters: u64,
}

/// What a route's work tells the daemon.
#[derive(Debug)]
pub enum Report {
    /// Files that may be sent, in order.
    Found(Vec<Candidate>),
    /// What became of a source; an error's text says what is wrong, and `Finish` may be sent
    /// again.
    Finished {
        /// Path below the spool.
        path: String,
        /// As it came with `Finish`.
        token: u64,
        /// What became of it.
        outcome: Result<Finished, String>,
    },
    /// Dead letters that stand in the spool again, as new files.
    Revived(Vec<String>),
    /// The spool's state, when it changed.
    State(State),
    /// New settings hold for what is offered from here on.
    Renewed,
}

/// What a spool costs, in numbers that do not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Names held now, those at the daemon left out.
    pub names: usize,
    /// Entries of folders read so far, each counted as often as it was read.
    pub entries: u64,
}

/// See the module.
pub struct Work {
    route: Arc<Route>,
    log: Logger,
    clock: Clock,
    stop: Arc<AtomicBool>,
    taking: Taking,
    folder: Folder,
    settle: Settle,
    waiting: Waiting,
    memory: Memory,
    comparison: Comparison,
    said: Said,
    /// Files of the spool that are in none of the above, as far as they are counted.
    rest: Totals,
    /// Those among them that the pass under way (or the last one) had in hand and no place for.
    left: Totals,
    pass: Option<Pass>,
    count: Option<Count>,
    count_at: Mono,
    /// Nothing of this spool is known yet: there is nothing to be told of it.
    unread: bool,
    /// Entries of folders read so far.
    entries: u64,
    credit: usize,
    /// Something was offered or given back since the last scan.
    moved_on: bool,
    scans: u32,
    still: Still,
    dead_letters: Tally,
    /// Periodic scans left out in a row, as nothing had moved.
    left_out: u32,
    /// The next scan has a cause; else it is the periodic one.
    scan_wanted: bool,
    /// Something happened to the folder itself, or to one that leads to it.
    folder_moved: bool,
    next_scan: Mono,
    scan_ended: Mono,
    scan_length: Duration,
    no_offer_before: Mono,
    state_changed: bool,
    state_told: Option<State>,
    no_state_before: Mono,
    /// What is to be told, oldest first; emptied by the thread. Bounded by the credit.
    pub out: VecDeque<Report>,
}

impl Work {
    /// The work on a route. `lock` is the spool's, where it was taken before; `stop` ends a
    /// running scan.
    ///
    /// # Errors
    /// A pattern of the route that is none.
    pub fn new(
        route: Arc<Route>,
        lock: Option<FolderLock>,
        inlet: Inlet,
        log: &Logger,
        clock: Clock,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, globset::Error> {
        file::ignore_sigio();
        let log = log.new(o!("route" => route.name.clone()));
        let folder = Folder::new(route.clone(), lock, inlet, log.clone());
        Ok(Self {
            taking: Taking::new(&route)?,
            settle: Settle::new(settling(&route), UNSETTLED_MAX),
            waiting: Waiting::new(route.order, IN_HAND_MAX),
            memory: Memory::default(),
            comparison: Comparison::default(),
            said: Said::default(),
            rest: Totals::default(),
            left: Totals::default(),
            pass: None,
            count: None,
            count_at: Mono::ZERO,
            unread: false,
            entries: 0,
            credit: 0,
            moved_on: false,
            scans: 0,
            still: Still::default(),
            dead_letters: Tally::default(),
            left_out: 0,
            scan_wanted: true,
            folder_moved: true,
            next_scan: Mono::ZERO,
            scan_ended: Mono::ZERO,
            scan_length: Duration::ZERO,
            no_offer_before: Mono::ZERO,
            state_changed: true,
            state_told: None,
            no_state_before: Mono::ZERO,
            out: VecDeque::new(),
            folder,
            route,
            log,
            clock,
            stop,
        })
    }

    /// What the spool costs so far.
    pub fn cost(&self) -> Cost {
        let gathered = self.pass.as_ref().map_or(0, Pass::gathered);
        Cost {
            names: self.waiting.len() + self.settle.len() + gathered,
            entries: self.entries,
        }
    }

    /// Does what is due. Tells when to come again, if nothing happens before.
    pub fn turn(&mut self) -> Mono {
        let now = (self.clock.now)();
        let missing = self.folder.root().is_none();
        if self.folder_moved || (missing && now.mono >= self.folder.retry_at) {
            self.look_at_folder(now);
        }
        if self.route.get.is_some() {
            return self.keep_folder((self.clock.now)());
        }
        if self.folder.root().is_some() {
            if now.mono >= self.next_scan && self.pass.is_none() {
                self.scan_due();
            }
            self.read_on();
            self.look_at_due((self.clock.now)());
            self.offer((self.clock.now)());
            self.compare_kept();
        }
        self.tell_state((self.clock.now)());
        self.next_due()
    }

    /// The folder of a route that downloads: who fills it does not ask here, so all there is to do is
    /// to own it, and to tell what is wrong with it.
    fn keep_folder(&mut self, now: Now) -> Mono {
        self.unread = false;
        self.tell_state(now);
        let look = match self.folder.root() {
            Some(_) => now.mono + RESCAN,
            None => self.folder.retry_at,
        };
        match self.state_changed {
            true => look.min(self.no_state_before),
            false => look,
        }
    }

    fn next_due(&self) -> Mono {
        let mut due = match self.folder.root() {
            Some(_) => self.next_read(),
            None => self.folder.retry_at,
        };
        if self.folder.root().is_some() {
            let others = [self.settle.next_due(), self.comparison.due()];
            due = others.into_iter().flatten().fold(due, Mono::min);
            if self.can_offer() {
                due = due.min(self.no_offer_before);
            }
        }
        if self.state_changed && !self.unread {
            due.min(self.no_state_before)
        } else {
            due
        }
    }

    /// Takes a command.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Want(n) => self.credit = self.credit.saturating_add(n).min(CREDIT_MAX),
            Command::Finish {
                path,
                sent,
                story,
                token,
            } => self.finish(path, sent, story.as_deref(), token),
            Command::Renew(route) => self.renew(route),
            Command::GiveBack(files) => self.give_back(files),
            // Who asked may have gone.
            Command::Retry { files, answer } => drop(answer.send(self.revive(&files))),
            Command::Forget { path } => {
                self.memory.take_back(&path);
                self.moved_on = true;
                self.look_anew(&path, false);
            }
        }
        self.state_changed = true;
    }

    fn say(&mut self, path: &[u8], reason: &str) {
        say(&mut self.said, &self.log, path, reason);
    }
}

/// How long a file has to rest: a marker says that it is whole, then there is nothing to wait for.
fn settling(route: &Route) -> Duration {
    match route.ready_suffix {
        Some(_) => Duration::ZERO,
        None => route.settle,
    }
}

/// Says once that something in the spool is left alone.
fn say(said: &mut Said, log: &Logger, path: &[u8], reason: &str) {
    match said.ask(reason, path) {
        Say::No => {}
        Say::Yes => warn!(log, "left alone in the spool";
            "file" => String::from_utf8_lossy(path).escape_debug().to_string(),
            "cause" => reason,
            "next" => "it stays where it is and is not sent"),
        Say::Last => warn!(log, "much is left alone in the spool";
            "cause" => "more than 1000 things in it cannot be sent",
            "next" => "no more of them are told"),
    }
}
