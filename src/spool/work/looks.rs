//! What becomes of a name that was looked at: it is taken in, settles, waits in order, or is left
//! for a later pass.

use super::Work;
use crate::spool::settle::{Sight, Verdict};
use crate::spool::source::facts_of;
use crate::spool::{Facts, Now, Stamp, marker};
use crate::sys::file;

/// Files that come due and are looked at in one turn, so that commands are not kept waiting.
const LOOKS_A_TURN: usize = 1_000;

impl Work {
    pub(super) fn take_in(&mut self, rel: &str, facts: Facts, sight: Sight, now: Now) {
        if self.memory.is_offered(rel)
            || !self.is_marked(rel)
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

    /// Whether a marker releases it, or none is waited for.
    pub(super) fn is_marked(&mut self, rel: &str) -> bool {
        let Some(marker) = marker::path_of(&self.route, rel) else {
            return true;
        };
        let root = self.folder.root();
        let is = root.is_some_and(|root| marker::look(root, &marker).is_some());
        if !is {
            self.waiting.remove(rel);
        }
        is
    }

    pub(super) fn enqueue(&mut self, rel: &str, facts: Facts) {
        if let Some(evicted) = self.waiting.insert(rel, facts) {
            self.leave(&evicted.stamp);
        }
    }

    /// There is no place for this file: a later pass must bring it.
    pub(super) fn leave(&mut self, stamp: &Stamp) {
        self.rest.add(stamp);
        self.left.add(stamp);
    }

    /// The daemon gave it back: if it is (or something new is) there, it settles anew.
    pub(super) fn look_anew(&mut self, rel: &str, own_rename: bool) {
        let Some(root) = self.folder.root() else {
            return;
        };
        let Ok(stat) = file::stat_beneath(root, rel) else {
            return;
        };
        if !file::is_regular(&stat) || !self.taking.takes(rel) || !self.is_marked(rel) {
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
    pub(super) fn look_at_due(&mut self, now: Now) {
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
}
