//! When a route's spool is read through, and what has to be known before: which folder it is, what
//! an earlier life left in it. How it is read is the business of `pass`.
//! No scan without a cause, and never in a storm: each leaves a gap behind it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use slog::{Logger, info, warn};

use super::{BATCH, IN_HAND_MAX, Work, say};
use crate::clock::Mono;
use crate::config::Route;
use crate::spool::finish::{self, Leftover};
use crate::spool::folder::{Folder, Look};
use crate::spool::marker;
use crate::spool::memory::Memory;
use crate::spool::said::Said;
use crate::spool::scan::{Eyes, Finds, Scan, Totals};
use crate::spool::settle::{Settle, Sight};
use crate::spool::still::Still;
use crate::spool::taking::Taking;
use crate::spool::waiting::Waiting;
use crate::spool::{Facts, Now};

/// A scan that finds what inotify did not tell (a network file system, a lost event).
pub(super) const RESCAN: Duration = Duration::from_secs(60);
/// The same where nothing can be watched, or the spool cannot be read.
pub(super) const RESCAN_BLIND: Duration = Duration::from_secs(5);
/// Every so many blind scans the watches are tried again: once a minute.
const BLIND_SCANS_A_TRY: u32 = 12;
/// Periodic scans left out in a row, where no folder's time has moved: a kept file that another
/// machine writes in place is found within ten minutes, and idling costs next to nothing.
const LEFT_OUT_MAX: u32 = 9;
/// No two scans of the whole spool begin closer together than this, and than 4 times the last
/// one's length: at most a fifth of the time goes into scans, whatever asks for them. A scan for
/// files that had no place has earned its way by those before: once the length is enough there.
const GAP_MIN: Duration = Duration::from_secs(1);
pub(super) const GAP_LENGTHS: u32 = 4;
/// With fewer files in hand than this, and more in the spool, the next batch is read.
pub(super) const REFILL_BELOW: usize = BATCH / 10;

impl Work {
    /// A scan is wanted, as soon as the gap allows.
    pub(super) fn scan_soon(&mut self) {
        self.scan_wanted = true;
        self.next_scan = self.next_scan.min(self.scan_ended + self.gap(GAP_LENGTHS));
    }

    pub(super) fn gap(&self, lengths: u32) -> Duration {
        (self.scan_length * lengths).max(GAP_MIN)
    }

    /// The time for a scan has come: does it, or finds that nothing has moved.
    pub(super) fn scan_due(&mut self) {
        self.count_dead_letters();
        let periodic = !self.scan_wanted && !self.folder.blind && self.rest.files == 0;
        let now = (self.clock.now)();
        if periodic && self.left_out < LEFT_OUT_MAX {
            self.look_at_folder(now);
            if self
                .folder
                .root()
                .is_some_and(|root| self.still.holds(root))
            {
                self.left_out += 1;
                self.next_scan = now.mono + RESCAN;
                return;
            }
        }
        self.left_out = 0;
        self.scan_wanted = false;
        self.begin_pass();
    }

    /// The files in hand run out while there are more in the spool, and the daemon wants them.
    pub(super) fn refill(&mut self) {
        if self.credit <= self.waiting.len() || self.waiting.len() >= REFILL_BELOW {
            return;
        }
        if let Some(pass) = &mut self.pass {
            pass.wake();
            return;
        }
        let in_hand = self.waiting.len() + self.settle.len();
        if self.left.files > 0 && self.moved_on && in_hand < REFILL_BELOW {
            self.scan_wanted = true;
            self.next_scan = self.next_scan.min(self.scan_ended + self.gap(1));
        }
    }

    /// Looks whether the spool folder is the one it was; a new one starts with a clean sheet.
    pub(super) fn look_at_folder(&mut self, now: Now) {
        self.folder_moved = false;
        match self.folder.look(now.mono) {
            Look::Same => return,
            Look::Missing => {}
            Look::Taken => self.begin_anew(now.mono),
        }
        self.unread = self.folder.root().is_some();
        self.settle.clear();
        self.waiting.clear();
        (self.pass, self.count) = (None, None);
        (self.rest, self.left) = (Totals::default(), Totals::default());
        self.state_changed = true;
    }

    fn begin_anew(&mut self, now: Mono) {
        self.next_scan = now;
        self.scan_wanted = true;
        if let Some(lock) = &self.folder.lock {
            self.memory.set_root(lock.identity());
            for (path, stamp) in std::mem::take(&mut self.comparison.before) {
                self.memory.keep_from_before(&path, stamp);
            }
        }
        // Which of our own folders lie below it may have changed with it.
        if let Ok(taking) = Taking::new(&self.route) {
            self.taking = taking;
        }
        match finish::sweep_halves(&self.route) {
            Ok(0) => {}
            Ok(swept) => info!(self.log, "half copies removed"; "files" => swept),
            Err(error) => warn!(self.log, "half copies cannot be looked for"; "error" => %error,
                "next" => "those of an earlier run stay"),
        }
    }

    /// Where nothing can be watched: now and then the watches are tried again.
    pub(super) fn blink(&mut self) {
        if self.folder.blind && self.scans.is_multiple_of(BLIND_SCANS_A_TRY) {
            self.folder.open_eyes();
        }
    }

    /// Scans a folder that is new below the spool.
    pub(super) fn scan_below(&mut self, rel: &str) {
        let Ok(finds) = self.walk(rel) else { return };
        let now = (self.clock.now)();
        self.entries += finds.entries as u64;
        for (path, facts) in finds.files {
            self.take_in(&path, facts, Sight::Seen, now);
        }
        self.rest.merge(&finds.rest);
        self.left.merge(&finds.rest);
        self.put_back(finds.leftovers);
    }

    fn walk(&mut self, start: &str) -> io::Result<Finds> {
        self.with_eyes(|root, scan, eyes| scan.run(root, start, eyes))
            .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Reads with the eyes of this route: watches the folders, leaves out what is known. None where
    /// there is no spool to read.
    pub(super) fn with_eyes<T>(
        &mut self,
        read: impl FnOnce(&OwnedFd, &Scan<'_>, &mut Sieve<'_>) -> T,
    ) -> Option<T> {
        let root = self.folder.root()?.try_clone().ok()?;
        let now = (self.clock.now)();
        let Self {
            taking,
            folder,
            settle,
            waiting,
            memory,
            said,
            still,
            log,
            route,
            stop,
            ..
        } = self;
        let scan = Scan {
            taking,
            order: route.order,
            places: IN_HAND_MAX,
            stop,
        };
        let mut sieve = Sieve {
            root: &root,
            route,
            folder,
            settle,
            waiting,
            memory,
            said,
            still,
            log,
            now,
        };
        Some(read(&root, &scan, &mut sieve))
    }

    /// Sources that an earlier life had hidden and not finished.
    pub(super) fn put_back(&mut self, leftovers: Vec<String>) {
        for rel in leftovers {
            let Some(root) = self.folder.root() else {
                return;
            };
            match finish::put_back_leftover(root, &self.route, &rel) {
                Ok(Leftover::PutBack(path)) => {
                    warn!(self.log, "source put back"; "file" => path.escape_debug().to_string(),
                        "cause" => "its end was interrupted, very likely after its delivery",
                        "next" => "it is sent again");
                    self.look_anew(&path, true);
                }
                Ok(Leftover::SetAside(at)) => {
                    warn!(self.log, "source set aside"; "at" => ?at,
                        "cause" => "its end was interrupted, and its name is taken or too long",
                        "next" => "it stays among the dead letters; a newer file is sent");
                }
                Err(error) => {
                    let reason = format!("a source whose end was interrupted: {error}");
                    self.say(rel.as_bytes(), &reason);
                }
            }
        }
    }
}

/// What a scan asks this route: whether a file is known.
pub(super) struct Sieve<'a> {
    root: &'a OwnedFd,
    route: &'a Route,
    folder: &'a mut Folder,
    settle: &'a mut Settle,
    waiting: &'a mut Waiting,
    memory: &'a mut Memory,
    said: &'a mut Said,
    still: &'a mut Still,
    log: &'a Logger,
    /// When this part of the scan began.
    now: Now,
}

impl Sieve<'_> {
    /// Whether it is neither at the daemon nor done with.
    fn is_open(&mut self, rel: &str, facts: &Facts) -> bool {
        !self.memory.is_offered(rel)
            && !self.memory.is_kept(rel, &facts.stamp)
            && !self.memory.is_refused(rel, facts)
            && marker::path_of(self.route, rel)
                .is_none_or(|m| marker::look(self.root, &m).is_some())
    }
}

impl Eyes for Sieve<'_> {
    fn entering(&mut self, rel: &str) {
        self.folder.watch_folder(rel);
        self.still.note(self.root, rel, self.now);
    }

    fn wants(&mut self, rel: &str, facts: &Facts) -> bool {
        !self.waiting.see(rel, facts) && !self.settle.see(rel, facts) && self.is_open(rel, facts)
    }

    fn left_alone(&mut self, rel: &[u8], reason: &str) {
        say(self.said, self.log, rel, reason);
    }
}

/// The eyes of a count: files that are open and not in hand, and nothing else.
pub(super) struct Tally<'a, 'b>(pub &'a mut Sieve<'b>);

impl Eyes for Tally<'_, '_> {
    fn entering(&mut self, _: &str) {}

    fn wants(&mut self, rel: &str, facts: &Facts) -> bool {
        let Self(sieve) = self;
        sieve.waiting.get(rel).is_none() && !sieve.settle.contains(rel) && sieve.is_open(rel, facts)
    }

    fn left_alone(&mut self, _: &[u8], _: &str) {}
}
