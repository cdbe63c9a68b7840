//! When a route's spool is scanned, and what becomes of what a scan finds.
//! No scan without a cause, and never in a storm: each leaves a gap behind it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use slog::{Logger, debug, info, warn};

use super::{BATCH, Work, say};
use crate::clock::Mono;
use crate::config::Route;
use crate::spool::finish::{self, Leftover};
use crate::spool::folder::{Folder, Look};
use crate::spool::marker;
use crate::spool::memory::Memory;
use crate::spool::said::Said;
use crate::spool::scan::{Eyes, Finds, Scan, Totals};
use crate::spool::settle::Sight;
use crate::spool::still::Still;
use crate::spool::taking::Taking;
use crate::spool::waiting::Waiting;
use crate::spool::{Facts, Now};

/// A scan that finds what inotify did not tell (a network file system, a lost event).
const RESCAN: Duration = Duration::from_secs(60);
/// The same where nothing can be watched, or the spool cannot be read.
const RESCAN_BLIND: Duration = Duration::from_secs(5);
/// Every so many blind scans the watches are tried again: once a minute.
const BLIND_SCANS_A_TRY: u32 = 12;
/// In a spool of more than a batch, files that cannot be read are tried again at every such scan
/// only: tried at each, ten thousand of them would keep all others from their turn.
const SCANS_A_RETRY: u32 = 10;
/// Periodic scans left out in a row, where no folder's time has moved: a kept file that another
/// machine writes in place is found within ten minutes, and idling costs next to nothing.
const LEFT_OUT_MAX: u32 = 9;
/// No two scans of the whole spool begin closer together than this, and than 4 times the last
/// one's length: at most a fifth of the time goes into scans, whatever asks for them. A scan for
/// the next batch has earned its way by the batch before: once the length is enough there.
const GAP_MIN: Duration = Duration::from_secs(1);
const GAP_LENGTHS: u32 = 4;
/// With fewer files in hand than this, and more in the spool, the next batch is fetched.
const REFILL_BELOW: usize = BATCH / 10;

impl Work {
    /// A scan is wanted, as soon as the gap allows.
    pub(super) fn scan_soon(&mut self) {
        self.scan_wanted = true;
        self.next_scan = self.next_scan.min(self.scan_ended + self.gap(GAP_LENGTHS));
    }

    fn gap(&self, lengths: u32) -> Duration {
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
        self.scan_all();
    }

    /// The files in hand run out while there are more in the spool, and the daemon wants them.
    pub(super) fn refill(&mut self) {
        let in_hand = self.waiting.len() + self.settle.len();
        let wanted = self.credit > self.waiting.len();
        if self.rest.files > 0 && self.moved_on && wanted && in_hand < REFILL_BELOW {
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
        self.settle.clear();
        self.waiting.clear();
        self.rest = Totals::default();
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

    /// Scans the whole spool: all that was in hand is replaced by the best that is there.
    pub(super) fn scan_all(&mut self) {
        let begun = (self.clock.now)();
        self.look_at_folder(begun);
        if self.folder.root().is_none() {
            return;
        }
        self.scans = self.scans.wrapping_add(1);
        self.blink();
        if self.rest.files == 0 || self.scans.is_multiple_of(SCANS_A_RETRY) {
            self.memory.clear_refused();
        }
        self.settle.begin_round();
        self.memory.begin_round();
        self.still.begin();
        let found = self.walk("");
        let ended = (self.clock.now)().mono;
        (self.scan_ended, self.scan_length) = (ended, ended.saturating_sub(begun.mono));
        let pause = if self.folder.blind || found.is_err() {
            RESCAN_BLIND
        } else {
            RESCAN
        };
        self.next_scan = ended + pause.max(self.gap(GAP_LENGTHS));
        match found {
            Ok(finds) => self.take_all(finds),
            Err(error) => {
                self.still.forget();
                self.folder.trouble(&error);
            }
        }
        self.state_changed = true;
    }

    /// Where nothing can be watched: now and then the watches are tried again.
    fn blink(&mut self) {
        if self.folder.blind && self.scans.is_multiple_of(BLIND_SCANS_A_TRY) {
            self.folder.open_eyes();
        }
    }

    fn take_all(&mut self, finds: Finds) {
        self.folder.well();
        let now = (self.clock.now)();
        let (kept, rest) = (finds.files.len(), finds.rest.files);
        let known = std::mem::replace(&mut self.waiting, Waiting::new(self.route.order, BATCH));
        self.rest = finds.rest;
        for (path, facts) in finds.files {
            // What had settled stays settled, whatever its times say.
            if known.get(&path) == Some(facts) {
                self.enqueue(&path, facts);
            } else {
                self.take_in(&path, facts, Sight::Seen, now);
            }
        }
        if finds.complete {
            self.settle.end_round();
            let missed = self.memory.end_round();
            self.comparison.scanned(missed);
        } else {
            self.still.forget();
        }
        self.moved_on = false;
        self.put_back(finds.leftovers);
        debug!(self.log, "spool scanned"; "in_hand" => kept, "more" => rest,
            "complete" => finds.complete);
    }

    /// Scans a folder that is new below the spool.
    pub(super) fn scan_below(&mut self, rel: &str) {
        let Ok(finds) = self.walk(rel) else { return };
        let now = (self.clock.now)();
        for (path, facts) in finds.files {
            self.take_in(&path, facts, Sight::Seen, now);
        }
        self.rest.merge(&finds.rest);
        self.put_back(finds.leftovers);
    }

    fn walk(&mut self, start: &str) -> io::Result<Finds> {
        let Some(root) = self.folder.root() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let root = root.try_clone()?;
        let now = (self.clock.now)();
        let Self {
            taking,
            folder,
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
            places: BATCH,
            stop,
        };
        let mut sieve = Sieve {
            root: &root,
            route,
            folder,
            memory,
            said,
            still,
            log,
            now,
        };
        scan.run(&root, start, &mut sieve)
    }

    /// Sources that an earlier life had hidden and not finished.
    fn put_back(&mut self, leftovers: Vec<String>) {
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

/// What a scan asks this route's memory.
struct Sieve<'a> {
    root: &'a OwnedFd,
    route: &'a Route,
    folder: &'a mut Folder,
    memory: &'a mut Memory,
    said: &'a mut Said,
    still: &'a mut Still,
    log: &'a Logger,
    /// When the scan began.
    now: Now,
}

impl Eyes for Sieve<'_> {
    fn entering(&mut self, rel: &str) {
        self.folder.watch_folder(rel);
        self.still.note(self.root, rel, self.now);
    }

    fn wants(&mut self, rel: &str, facts: &Facts) -> bool {
        !self.memory.is_offered(rel)
            && !self.memory.is_kept(rel, &facts.stamp)
            && !self.memory.is_refused(rel, facts)
            && marker::path_of(self.route, rel)
                .is_none_or(|m| marker::look(self.root, &m).is_some())
    }

    fn left_alone(&mut self, rel: &[u8], reason: &str) {
        say(self.said, self.log, rel, reason);
    }
}
