//! What has been said already: so that a thing left alone is told once, not at every scan.
//! Bounded: a spool with a million symlinks must fill neither the log nor the memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Things told at most: enough for a person to see what is wrong, after that one last line
/// says that more is left untold.
const MAX: usize = 1_000;

/// Whether to say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It is new.
    Yes,
    /// It is new and the last one that will be told.
    Last,
    /// It has been said, or too much has.
    No,
}

/// A bounded memory of what has been said; keeps 8 bytes a thing, not its text.
#[derive(Debug, Default)]
pub struct Said {
    keys: HashSet<u64>,
    hasher: RandomState,
}

impl Said {
    /// Whether this reason about this path is to be said now.
    pub fn ask(&mut self, reason: &str, path: &[u8]) -> Say {
        if self.keys.len() >= MAX || !self.keys.insert(self.hasher.hash_one((reason, path))) {
            Say::No
        } else if self.keys.len() == MAX {
            Say::Last
        } else {
            Say::Yes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_said_once_and_a_flood_ends_with_a_last_word() {
        let mut said = Said::default();
        assert_eq!(said.ask("symlink", b"a"), Say::Yes);
        assert_eq!(said.ask("symlink", b"a"), Say::No);
        assert_eq!(said.ask("fifo", b"a"), Say::Yes);
        let told: Vec<Say> = (0..5_000_u32)
            .map(|n| said.ask("symlink", &n.to_le_bytes()))
            .collect();
        assert_eq!(told.iter().filter(|say| **say != Say::No).count(), MAX - 2);
        assert_eq!(told.iter().filter(|say| **say == Say::Last).count(), 1);
    }
}
