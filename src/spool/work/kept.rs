//! What the journal has of kept files is compared with the spool, in steps, so that it does not
//! remember for ever what is gone: after the first whole scan, and after one that missed some.

use std::sync::Arc;
use std::time::Duration;

use slog::{debug, warn};

use super::Work;
use crate::clock::Mono;
use crate::spool::journal::KeptRows;
use crate::spool::{Stamp, stamp_at};

/// Files compared in one step.
const STEP: usize = 1_000;
/// Between two steps: commands and scans go on meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// Until a journal is tried again that only its writer can read.
const HELD: Duration = Duration::from_secs(60);
/// From the end of one comparison to the next.
const GAP: Duration = Duration::from_secs(3600);

/// The comparison.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    rows: Option<KeptRows>,
    /// What stays of an earlier life's deliveries, until the spool is there.
    pub(super) before: Vec<(Arc<str>, Stamp)>,
    /// A whole scan has ended in this life.
    scanned: bool,
    wanted: bool,
    /// The last path that was compared.
    cursor: Arc<str>,
    next: Mono,
}

impl Comparison {
    /// A whole scan has ended, and has missed kept files or not.
    pub(super) fn scanned(&mut self, missed: bool) {
        self.wanted |= missed || !self.scanned;
        self.scanned = true;
    }

    /// When the next step is due, if any.
    pub(super) fn due(&self) -> Option<Mono> {
        (self.wanted && self.rows.is_some()).then_some(self.next)
    }
}

impl Work {
    /// Files that were delivered in an earlier life and stay, and where the journal has them.
    pub fn remember_kept(&mut self, kept: Vec<(Arc<str>, Stamp)>, rows: Option<KeptRows>) {
        self.comparison.before = kept;
        self.comparison.rows = rows;
    }

    /// The next step of the comparison, if it is due.
    pub(super) fn compare_kept(&mut self) {
        let now = (self.clock.now)();
        if self.comparison.due().is_none_or(|due| now.mono < due) {
            return;
        }
        let Some(rows) = self.comparison.rows.clone() else {
            return;
        };
        let found = match rows.after(&self.comparison.cursor, STEP) {
            Ok(Some(found)) => found,
            Ok(None) => {
                debug!(self.log, "the journal is read by nobody but its writer now";
                    "next" => "kept files are compared with it a minute later");
                self.comparison.next = now.mono + HELD;
                return;
            }
            Err(error) => {
                warn!(self.log, "kept files cannot be compared with the journal";
                    "error" => error.to_string(), "next" => "tried again in an hour");
                self.comparison.next = now.mono + GAP;
                return;
            }
        };
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        for (path, noted) in &found {
            if !noted && self.memory.knows_kept(path) {
                continue;
            }
            // Where it cannot be looked at, nothing is known.
            match stamp_at(&self.route.spool, path) {
                Ok(None) if !noted => gone.push(Arc::clone(path)),
                Ok(Some(_)) if *noted => back.push(Arc::clone(path)),
                _ => {}
            }
        }
        self.comparison.next = now.mono + PAUSE;
        if !gone.is_empty() || !back.is_empty() {
            debug!(self.log, "kept files compared with the journal"; "gone" => gone.len(),
                "back" => back.len(), "next" => "gone ones are forgotten after state.history");
        }
        let since = crate::clock::unix();
        let noted = (gone.is_empty() || rows.note(gone, Some(since)))
            && (back.is_empty() || rows.note(back, None));
        if !noted {
            // The queue is full: the same step once more.
            return;
        }
        match found.last() {
            Some((last, _)) if found.len() == STEP => self.comparison.cursor = Arc::clone(last),
            _ => {
                self.comparison.cursor = Arc::default();
                self.comparison.wanted = false;
                self.comparison.next = now.mono + GAP;
            }
        }
    }
}
