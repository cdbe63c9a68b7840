//! Whether any folder of the spool changed since the last whole scan, at the price of one look a
//! folder: where none did, no name came or went, and the periodic scan can be left out. Says
//! "changed" whenever it is not sure. Knows names only: a file written in place changes no folder.

use std::os::fd::AsFd;

use super::source::facts_of;
use super::{Facts, Now};
use crate::sys::file;

/// Folders remembered at most; a spool of more is simply scanned.
const FOLDERS_MAX: usize = 1_000;

/// A folder that changed less than this before it was read may change again without its time
/// telling: the kernel's clock for files ticks every 10 ms at the coarsest, and some file
/// systems keep seconds only (two for FAT).
const TICK_NS: i64 = 100_000_000;
const COARSE_TICK_NS: i64 = 3_000_000_000;

/// What was noted of the folders.
#[derive(Debug, Default)]
pub(super) struct Still {
    folders: Vec<(String, Facts)>,
    sure: bool,
}

impl Still {
    /// A whole scan begins: nothing is known.
    pub(super) fn begin(&mut self) {
        self.folders.clear();
        self.sure = true;
    }

    /// A folder is about to be read.
    pub(super) fn note(&mut self, root: impl AsFd, rel: &str, now: Now) {
        if !self.sure {
            return;
        }
        match look(root, rel) {
            Some(facts) if self.folders.len() < FOLDERS_MAX && is_past(&facts, now) => {
                self.folders.push((rel.to_owned(), facts));
            }
            _ => self.forget(),
        }
    }

    /// What was noted is no ground to leave a scan out.
    pub(super) fn forget(&mut self) {
        self.folders.clear();
        self.sure = false;
    }

    /// Whether all folders are as they were when they were read.
    pub(super) fn holds(&self, root: impl AsFd) -> bool {
        let same = |(rel, facts): &(String, Facts)| look(root.as_fd(), rel) == Some(*facts);
        self.sure && !self.folders.is_empty() && self.folders.iter().all(same)
    }
}

fn look(root: impl AsFd, rel: &str) -> Option<Facts> {
    let stat = if rel.is_empty() {
        rustix::fs::fstat(root).ok()?
    } else {
        file::stat_beneath(root, rel).ok()?
    };
    Some(facts_of(&stat))
}

/// Whether a change after this look would have another time.
fn is_past(facts: &Facts, now: Now) -> bool {
    let coarse = facts.ctime_ns % 1_000_000_000 == 0;
    let tick = if coarse { COARSE_TICK_NS } else { TICK_NS };
    now.unix_ns.saturating_sub(facts.ctime_ns) > tick
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Clock;
    use std::fs;

    #[test]
    fn a_name_that_comes_or_goes_in_any_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let root = file::open_root(dir.path()).unwrap();
        let mut now = (Clock::system().now)();
        let mut still = Still::default();
        assert!(!still.holds(&root), "nothing noted yet");
        let mut note = |now| {
            still.begin();
            ["", "a", "a/b"]
                .iter()
                .for_each(|rel| still.note(&root, rel, now));
            still.holds(&root)
        };
        assert!(!note(now), "made just now: not sure");
        now.unix_ns += 10_000_000_000;
        assert!(note(now));
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        assert!(!still.holds(&root));
    }
}
