//! What a route remembers of files that are not waiting: offered ones, delivered ones that stay
//! (`after = "keep"`), and ones that cannot be read. By hash, not by path: a million kept files
//! cost some tens of bytes each. Two paths of one hash (once in 10^7 spools of a million files)
//! cost a second sending or a late one, never a loss.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::{Facts, Stamp};

/// Unreadable files remembered at most; beyond it the memory starts anew, and they are only
/// tried (and refused) again.
const REFUSED_MAX: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hasher: RandomState,
    /// Bounded by the daemon's credit.
    offered: HashMap<u64, Stamp>,
    /// The markers that released them; bounded likewise.
    markers: HashMap<u64, Stamp>,
    /// Bounded by the files in the spool: what a whole scan does not see is dropped.
    kept: HashMap<u64, Kept>,
    /// Time of the last change of the refused file: a change of rights moves it.
    refused: HashMap<u64, i64>,
    round: u32,
    root: u32,
    /// One of those that an earlier life delivered was seen: theirs is the spool folder now.
    seen_before: bool,
}

/// The spool folder of an earlier life: it is not known which one.
const BEFORE: u32 = 0;

fn version(stamp: &Stamp) -> (u64, u64, i64) {
    (stamp.ino, stamp.size, stamp.mtime_ns)
}

/// A delivered file that stays.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Hash of its stamp but for the device, whose number may change when a volume is mounted.
    version: u64,
    /// The last scan that saw it.
    round: u32,
    /// The spool folder it was in: a volume that is unmounted leaves an empty folder behind,
    /// and when it is back its files were delivered still.
    root: u32,
}

impl Memory {
    fn key(&self, path: &str) -> u64 {
        self.hasher.hash_one(path)
    }

    pub(super) fn offer(&mut self, path: &str, stamp: Stamp) {
        self.offered.insert(self.key(path), stamp);
    }

    /// Remembers the marker that released an offered file.
    pub(super) fn mark(&mut self, path: &str, marker: Stamp) {
        self.markers.insert(self.key(path), marker);
    }

    /// The marker that released it.
    pub(super) fn marker(&self, path: &str) -> Option<Stamp> {
        self.markers.get(&self.key(path)).copied()
    }

    pub(super) fn is_offered(&self, path: &str) -> bool {
        self.offered.contains_key(&self.key(path))
    }

    /// The daemon has done with it; tells whether it was offered.
    pub(super) fn take_back(&mut self, path: &str) -> bool {
        let key = self.key(path);
        self.markers.remove(&key);
        self.offered.remove(&key).is_some()
    }

    pub(super) fn offered(&self) -> impl Iterator<Item = &Stamp> {
        self.offered.values()
    }

    /// Remembers a delivered file that stays.
    pub(super) fn keep(&mut self, path: &str, stamp: Stamp) {
        self.keep_in(self.root, path, stamp);
    }

    /// The same for one that an earlier life delivered. A volume that is not mounted yet leaves
    /// an empty folder: none of them is gone before one of them was seen.
    pub(super) fn keep_from_before(&mut self, path: &str, stamp: Stamp) {
        self.keep_in(BEFORE, path, stamp);
    }

    fn keep_in(&mut self, root: u32, path: &str, stamp: Stamp) {
        let kept = Kept {
            version: self.hasher.hash_one(version(&stamp)),
            round: self.round,
            root,
        };
        self.kept.insert(self.key(path), kept);
    }

    /// Whether this version was delivered and stays; notes that it is still there.
    pub(super) fn is_kept(&mut self, path: &str, stamp: &Stamp) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let (key, version) = (self.key(path), self.hasher.hash_one(version(stamp)));
        let Some(kept) = self.kept.get_mut(&key) else {
            return false;
        };
        kept.round = self.round;
        if kept.root == BEFORE {
            kept.root = self.root;
            self.seen_before = true;
        }
        kept.version == version
    }

    /// Whether a file of that path was delivered and stays in this spool folder.
    pub(super) fn knows_kept(&self, path: &str) -> bool {
        let kept = self.kept.get(&self.key(path));
        kept.is_some_and(|kept| kept.root == self.root)
    }

    /// Remembers that it cannot be opened as it is.
    pub(super) fn refuse(&mut self, path: &str, facts: &Facts) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.refused.insert(self.key(path), facts.ctime_ns);
    }

    /// Whether it could not be opened, and nothing about it changed since.
    pub(super) fn is_refused(&self, path: &str, facts: &Facts) -> bool {
        !self.refused.is_empty() && self.refused.get(&self.key(path)) == Some(&facts.ctime_ns)
    }

    /// A whole scan begins.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// It has ended and read everything: what stays but was not seen is gone. Tells whether
    /// something is.
    pub(super) fn end_round(&mut self) -> bool {
        let before = self.kept.len();
        let (round, root, seen_before) = (self.round, self.root, self.seen_before);
        self.kept.retain(|_, kept| {
            let elsewhere = kept.root != root && !(kept.root == BEFORE && seen_before);
            kept.round == round || elsewhere
        });
        if self.kept.capacity() > 4 * self.kept.len() + 64 {
            self.kept.shrink_to_fit();
        }
        self.kept.len() < before
    }

    /// Lets what was refused be tried again: the cause may lie outside the files (the rights of
    /// a folder above them), where nothing about them tells that it is gone.
    pub(super) fn clear_refused(&mut self) {
        self.refused.clear();
    }

    /// Another folder is the spool now (or the first).
    pub(super) fn set_root(&mut self, identity: (u64, u64)) {
        self.clear_refused();
        self.root = self.hasher.hash_one(identity) as u32 | 1;
    }
}
