//! How a spool is read: one pass through it in turns, so that the first files go out before the
//! last are seen, commands and events are never kept waiting, and each file is looked at once
//! however many batches that takes. A pass gathers a batch, rests until it is used up, and goes on
//! where it stood. While it rests, what it has not read yet is counted, for the sums that are told.
//! A pass that rested is followed by another one: what came meanwhile where it had been.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use slog::debug;

use super::scans::{GAP_LENGTHS, RESCAN, RESCAN_BLIND, Tally};
use super::{IN_HAND_MAX, Totals, Work};
use crate::clock::Mono;
use crate::spool::Facts;
use crate::spool::scan::{Part, Scan, Walk};
use crate::spool::settle::Sight;

/// Entries read in one turn, so that commands and events are not kept waiting.
const ENTRIES_A_TURN: usize = 4_096;
/// Counts begin no closer together than this, and than so many times the last one's length: what
/// they tell is for people and costs 2 % of the time at most.
const COUNT_GAP: Duration = Duration::from_secs(60);
const COUNT_LENGTHS: u32 = 50;

/// A pass under way.
pub(super) struct Pass {
    walk: Walk,
    /// The batch so far.
    gathered: Vec<(String, Facts)>,
    leftovers: Vec<String>,
    /// It reads; else it rests until files are needed.
    gathering: bool,
    rested: bool,
    /// While it rests: when it goes on although the hands are full.
    rest_end: Mono,
    complete: bool,
    entries: u64,
    /// Time spent on reading.
    length: Duration,
}

impl Pass {
    /// Files are needed.
    pub(super) fn wake(&mut self) {
        self.gathering = true;
    }

    /// Names in hand.
    pub(super) fn gathered(&self) -> usize {
        self.gathered.len()
    }
}

/// A count under way.
pub(super) struct Count {
    walk: Walk,
    totals: Totals,
    length: Duration,
}

impl Work {
    /// A pass through the whole spool begins.
    pub(super) fn begin_pass(&mut self) {
        let now = (self.clock.now)();
        self.look_at_folder(now);
        if self.folder.root().is_none() {
            return;
        }
        self.scans = self.scans.wrapping_add(1);
        self.blink();
        if self.left.files == 0 {
            // Else those that cannot be read would keep the others from their turn.
            self.memory.clear_refused();
        }
        self.settle.begin_round();
        self.waiting.begin_round();
        self.memory.begin_round();
        self.still.begin();
        self.left = Totals::default();
        self.moved_on = false;
        self.count_at = now.mono;
        let walk = self
            .with_eyes(|root, _, eyes| Walk::open(root, "", eyes))
            .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        match walk {
            Ok(walk) => {
                self.pass = Some(Pass {
                    walk,
                    gathered: Vec::new(),
                    leftovers: Vec::new(),
                    gathering: true,
                    rested: false,
                    rest_end: Mono::ZERO,
                    complete: true,
                    entries: 0,
                    length: Duration::ZERO,
                });
            }
            Err(error) => {
                self.still.forget();
                self.folder.trouble(&error);
                self.unread = false;
                (self.scan_ended, self.scan_length) = (now.mono, Duration::ZERO);
                self.next_scan = now.mono + RESCAN_BLIND;
            }
        }
        self.state_changed = true;
    }

    /// When there is something to read.
    pub(super) fn next_read(&self) -> Mono {
        match &self.pass {
            None => self.next_scan,
            Some(pass) if pass.gathering || self.count.is_some() => Mono::ZERO,
            Some(pass) if self.credit > 0 => self.count_at.min(pass.rest_end),
            Some(_) => self.count_at,
        }
    }

    /// Reads a part of what is to be read, if anything is.
    pub(super) fn read_on(&mut self) {
        let Some(mut pass) = self.pass.take() else {
            return;
        };
        let now = (self.clock.now)().mono;
        // Where files come faster than they go, those that were there before have their turn too.
        let overdue = self.credit > 0 && now >= pass.rest_end;
        if pass.gathering || overdue {
            pass.gathering = true;
            self.gather(pass, overdue);
        } else {
            self.pass = Some(pass);
            if now >= self.count_at || self.count.is_some() {
                self.count_on();
            }
        }
    }

    fn gather(&mut self, mut pass: Pass, overdue: bool) {
        let begun = (self.clock.now)().mono;
        let taken = if overdue { 0 } else { self.waiting.len() };
        // One more than there is room for tells that it is not the end.
        let limit = IN_HAND_MAX.saturating_sub(taken).max(1);
        let part = Part {
            entries: ENTRIES_A_TURN,
            files: limit.saturating_sub(pass.gathered.len()),
        };
        let read = self.with_eyes(|_, scan, eyes| pass.walk.go_on(scan, part, eyes));
        let ended = (self.clock.now)().mono;
        pass.length += ended.saturating_sub(begun);
        let lost = read.is_none();
        pass.complete &= read.as_ref().is_some_and(|finds| finds.complete);
        if let Some(finds) = read {
            pass.entries += finds.entries as u64;
            self.entries += finds.entries as u64;
            pass.gathered.extend(finds.files);
            pass.leftovers.extend(finds.leftovers);
        }
        let over = lost || pass.walk.ended() || self.stop.load(Relaxed);
        if !over && pass.gathered.len() < limit {
            self.pass = Some(pass);
            return;
        }
        self.folder.well();
        self.take_batch(&mut pass);
        if over {
            self.end_pass(&pass, ended);
        } else {
            pass.gathering = false;
            pass.rested = true;
            pass.rest_end = ended + RESCAN;
            self.pass = Some(pass);
        }
        self.state_changed = true;
    }

    fn take_batch(&mut self, pass: &mut Pass) {
        let now = (self.clock.now)();
        for (path, facts) in std::mem::take(&mut pass.gathered) {
            self.rest.subtract(&facts.stamp);
            // It may have come by an event, and gone out, since it was read.
            if !self.memory.is_offered(&path) {
                self.take_in(&path, facts, Sight::Seen, now);
            }
        }
        self.put_back(std::mem::take(&mut pass.leftovers));
        self.unread = false;
    }

    fn end_pass(&mut self, pass: &Pass, ended: Mono) {
        self.count = None;
        (self.scan_ended, self.scan_length) = (ended, pass.length);
        self.scan_wanted |= pass.rested && self.moved_on;
        let blind = self.folder.blind;
        let pause = match (self.scan_wanted, blind) {
            (true, _) => Duration::ZERO,
            (false, true) => RESCAN_BLIND,
            (false, false) => RESCAN,
        };
        self.next_scan = ended + pause.max(self.gap(GAP_LENGTHS));
        if pass.complete {
            self.settle.end_round();
            self.waiting.end_round();
            let missed = self.memory.end_round();
            self.comparison.scanned(missed);
        } else {
            self.still.forget();
        }
        self.rest = self.left;
        debug!(self.log, "spool scanned"; "entries" => pass.entries,
            "in_hand" => self.waiting.len(), "more" => self.left.files,
            "complete" => pass.complete, "rested" => pass.rested);
    }

    /// Counts a part of what is neither in hand nor done with.
    fn count_on(&mut self) {
        let begun = (self.clock.now)().mono;
        let mut count = match self.count.take() {
            Some(count) => count,
            None => {
                let walk = self.with_eyes(|root, _, eyes| Walk::open(root, "", &mut Tally(eyes)));
                let Some(Ok(walk)) = walk else {
                    self.count_at = begun + COUNT_GAP;
                    return;
                };
                Count {
                    walk,
                    totals: Totals::default(),
                    length: Duration::ZERO,
                }
            }
        };
        let part = Part {
            entries: ENTRIES_A_TURN,
            files: usize::MAX,
        };
        let finds = self.with_eyes(|_, scan, eyes| {
            let none = Scan { places: 0, ..*scan };
            count.walk.go_on(&none, part, &mut Tally(eyes))
        });
        let now = (self.clock.now)().mono;
        count.length += now.saturating_sub(begun);
        let finds = finds.unwrap_or_default();
        self.entries += finds.entries as u64;
        count.totals.merge(&finds.rest);
        if count.walk.ended() {
            self.rest = count.totals;
            self.count_at = now + COUNT_GAP.max(count.length * COUNT_LENGTHS);
            debug!(self.log, "spool counted"; "files" => count.totals.files);
        } else {
            if count.totals.files > self.rest.files {
                self.rest = count.totals;
            }
            self.count = Some(count);
        }
        self.state_changed = true;
    }
}
