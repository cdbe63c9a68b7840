//! All blocking work on one route's spool, as a plain struct that one thread turns: scans, the
//! looks at single files, offers within the daemon's credit, the end of delivered sources.
//! Owns what is known of the spool; decides nothing about uploads. Bounded whatever the spool
//! holds: 10,000 files in order, 20,000 unsettled, the rest is counted and read when its turn comes.
//! Promises that a file is offered once until the daemon gives it back.

mod ends;
mod offers;
mod pass;
mod scans;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::FileType;
use slog::{Logger, debug, o, warn};

use self::pass::{Count, Pass};
use super::finish::Finished;
use super::folder::Folder;
use super::lock::FolderLock;
use super::memory::Memory;
use super::said::{Said, Say};
use super::scan::{Totals, what_it_is};
use super::settle::{Settle, Sight, Verdict};
use super::source::facts_of;
use super::still::Still;
use super::taking::{Taking, check_name};
use super::waiting::{BATCH, Waiting};
use super::watch::{FsEvent, Inlet, Kind};
use super::{Candidate, Clock, Facts, Now, Stamp};
use crate::clock::Mono;
use crate::config::Route;
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

/// Files that come due and are looked at in one turn, so that commands are not kept waiting.
const LOOKS_A_TURN: usize = 1_000;

/// What the daemon wants of a route.
#[derive(Debug)]
pub enum Command {
    /// So many more files may be offered.
    Want(usize),
    /// It was delivered in this version: do with the source what the route says.
    Finish {
        /// Path below the spool.
        path: String,
        /// The version that was sent.
        sent: Stamp,
        /// Comes back with the outcome.
        token: u64,
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
    /// Their bytes.
    pub bytes: u64,
    /// The oldest modification time among them, Unix seconds.
    pub oldest_mtime: Option<f64>,
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
    /// The spool's state, when it changed.
    State(State),
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
    /// What stays of an earlier life's deliveries, until the spool is there.
    kept_before: Vec<(Arc<str>, Stamp)>,
    said: Said,
    /// Files of the spool that are in none of the above, as far as they are counted.
    rest: Totals,
    /// Those among them that the pass under way (or the last one) had in hand and no place for.
    left: Totals,
    pass: Option<Pass>,
    count: Option<Count>,
    count_at: Mono,
    credit: usize,
    /// Something was offered or given back since the last scan.
    moved_on: bool,
    scans: u32,
    still: Still,
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
            settle: Settle::new(route.settle, UNSETTLED_MAX),
            waiting: Waiting::new(route.order, IN_HAND_MAX),
            memory: Memory::default(),
            kept_before: Vec::new(),
            said: Said::default(),
            rest: Totals::default(),
            left: Totals::default(),
            pass: None,
            count: None,
            count_at: Mono::ZERO,
            credit: 0,
            moved_on: false,
            scans: 0,
            still: Still::default(),
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

    /// Files that were delivered in an earlier life and stay.
    pub fn remember_kept(&mut self, kept: Vec<(Arc<str>, Stamp)>) {
        self.kept_before = kept;
    }

    /// Does what is due. Tells when to come again, if nothing happens before.
    pub fn turn(&mut self) -> Mono {
        let now = (self.clock.now)();
        let missing = self.folder.root().is_none();
        if self.folder_moved || (missing && now.mono >= self.folder.retry_at) {
            self.look_at_folder(now);
        }
        if self.folder.root().is_some() {
            if now.mono >= self.next_scan && self.pass.is_none() {
                self.scan_due();
            }
            self.read_on();
            self.look_at_due((self.clock.now)());
            self.offer((self.clock.now)());
        }
        self.tell_state((self.clock.now)());
        self.next_due()
    }

    fn next_due(&self) -> Mono {
        let mut due = match self.folder.root() {
            Some(_) => self.next_read(),
            None => self.folder.retry_at,
        };
        if self.folder.root().is_some() {
            due = self.settle.next_due().map_or(due, |next| next.min(due));
            if self.can_offer() {
                due = due.min(self.no_offer_before);
            }
        }
        if self.state_changed {
            due.min(self.no_state_before)
        } else {
            due
        }
    }

    /// Takes a command.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Want(n) => self.credit = self.credit.saturating_add(n).min(CREDIT_MAX),
            Command::Finish { path, sent, token } => self.finish(path, sent, token),
            Command::Forget { path } => {
                self.memory.take_back(&path);
                self.moved_on = true;
                self.look_anew(&path, false);
            }
        }
        self.state_changed = true;
    }

    /// Events were lost: a scan must tell.
    pub fn events_lost(&mut self) {
        debug!(self.log, "file events were lost"; "next" => "the spool is scanned");
        self.folder_moved = true;
        self.scan_soon();
    }

    /// Takes what the watch told. Costs a look at that one name, never a scan of the spool.
    pub fn event(&mut self, event: FsEvent) {
        let FsEvent::Below(kind, path) = event else {
            // Where it is still the same folder, its rights may have changed.
            self.folder_moved = true;
            return self.scan_soon();
        };
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let rel = match check_name(bytes) {
            Ok(rel) => rel,
            Err(reason) => return self.say(bytes, reason),
        };
        let sight = if kind == Kind::MovedIn {
            Sight::MovedIn
        } else {
            Sight::Seen
        };
        if kind == Kind::Gone {
            self.gone(rel);
        }
        self.look_at(rel, sight, kind != Kind::Seen);
        self.state_changed = true;
    }

    fn gone(&mut self, rel: &str) {
        self.waiting.remove(rel);
        self.settle.forget(rel);
        self.forget_watch(rel);
    }

    fn forget_watch(&mut self, rel: &str) {
        if let Some(watch) = &mut self.folder.watch {
            watch.forget(rel);
        }
    }

    /// Looks at one name and takes in what stands there. A folder is scanned if it is new, that
    /// is `moved` here or not watched yet.
    fn look_at(&mut self, rel: &str, sight: Sight, moved: bool) {
        let Some(root) = self.folder.root() else {
            return;
        };
        let Ok(stat) = file::stat_beneath(root, rel) else {
            return self.gone(rel);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if self.taking.takes(rel) => {
                let now = (self.clock.now)();
                self.take_in(rel, facts_of(&stat), sight, now);
            }
            FileType::RegularFile => {}
            FileType::Directory if self.taking.enters_all(rel) => {
                let known = self
                    .folder
                    .watch
                    .as_ref()
                    .is_some_and(|watch| watch.has(rel));
                if moved || !known {
                    self.forget_watch(rel);
                    self.scan_below(rel);
                }
            }
            FileType::Directory => {}
            other if self.taking.takes(rel) => self.say(rel.as_bytes(), what_it_is(other)),
            _ => {}
        }
    }

    fn take_in(&mut self, rel: &str, facts: Facts, sight: Sight, now: Now) {
        if self.memory.is_offered(rel)
            || self.memory.is_kept(rel, &facts.stamp)
            || self.waiting.get(rel) == Some(facts)
        {
            self.settle.forget(rel);
            return;
        }
        self.waiting.remove(rel);
        match self.settle.observe(rel, facts, sight, now) {
            Verdict::Settled => self.enqueue(rel, facts),
            Verdict::Waits => {}
            Verdict::Full => self.leave(&facts.stamp),
        }
    }

    fn enqueue(&mut self, rel: &str, facts: Facts) {
        if let Some(evicted) = self.waiting.insert(rel, facts) {
            self.leave(&evicted.stamp);
        }
    }

    /// There is no place for this file: a later pass must bring it.
    fn leave(&mut self, stamp: &Stamp) {
        self.rest.add(stamp);
        self.left.add(stamp);
    }

    /// The daemon gave it back: if it is (or something new is) there, it settles anew.
    fn look_anew(&mut self, rel: &str, own_rename: bool) {
        let Some(root) = self.folder.root() else {
            return;
        };
        let Ok(stat) = file::stat_beneath(root, rel) else {
            return;
        };
        if !file::is_regular(&stat) || !self.taking.takes(rel) {
            return;
        }
        let facts = facts_of(&stat);
        self.waiting.remove(rel);
        if self
            .settle
            .restart(rel, facts, own_rename, (self.clock.now)())
            == Verdict::Full
        {
            self.leave(&facts.stamp);
        }
    }

    /// Looks at the files that have come due.
    fn look_at_due(&mut self, now: Now) {
        for _ in 0..LOOKS_A_TURN {
            let Some(path) = self.settle.first_due(now.mono) else {
                return;
            };
            let Some(root) = self.folder.root() else {
                return;
            };
            match file::stat_beneath(root, &path) {
                Ok(stat) if file::is_regular(&stat) => {
                    self.take_in(&path, facts_of(&stat), Sight::Seen, now);
                }
                _ => drop(self.settle.forget(&path)),
            }
            self.state_changed = true;
        }
    }

    fn say(&mut self, path: &[u8], reason: &str) {
        say(&mut self.said, &self.log, path, reason);
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
