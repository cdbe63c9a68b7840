//! The settled files in the route's order, the best 10,000 of them: what is offered next.
//! Bounded; what does not fit is handed back to the caller, who knows that a scan must bring it.

use std::collections::{BTreeMap, HashMap};

use super::Facts;
use crate::config::Order;

/// Files kept in order: the batch within which the configuration promises exact order.
pub const BATCH: usize = 10_000;

/// A file's place in the order: smaller goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    key: i64,
    /// The path; decides among equals.
    pub path: String,
}

/// The part of a rank that costs no allocation: compare it before making a [`Rank`].
pub fn rank_key(order: Order, facts: &Facts) -> i64 {
    match order {
        Order::Oldest => facts.stamp.mtime_ns,
        Order::Newest => facts.stamp.mtime_ns.saturating_neg(),
        Order::Name => 0,
    }
}

impl Rank {
    /// The place of this file.
    pub fn new(order: Order, path: String, facts: &Facts) -> Self {
        Self {
            key: rank_key(order, facts),
            path,
        }
    }

    /// Whether a file of this key and path goes before this one.
    pub fn is_after(&self, key: i64, path: &str) -> bool {
        (key, path) < (self.key, self.path.as_str())
    }
}

/// The settled files, in order.
#[derive(Debug)]
pub struct Waiting {
    order: Order,
    places: usize,
    files: BTreeMap<Rank, Waits>,
    keys: HashMap<String, i64>,
    round: u32,
}

#[derive(Debug, Clone, Copy)]
struct Waits {
    facts: Facts,
    /// The scan that last saw it.
    round: u32,
}

impl Waiting {
    /// An empty queue with a bound on its places.
    pub fn new(order: Order, places: usize) -> Self {
        Self {
            order,
            places,
            files: BTreeMap::new(),
            keys: HashMap::new(),
            round: 0,
        }
    }

    /// Puts a file in, or its newer version in its stead. Tells the facts of the one that has
    /// no place any more, which may be this very file.
    pub fn insert(&mut self, path: &str, facts: Facts) -> Option<Facts> {
        self.remove(path);
        let rank = Rank::new(self.order, path.to_owned(), &facts);
        self.keys.insert(rank.path.clone(), rank.key);
        let round = self.round;
        self.files.insert(rank, Waits { facts, round });
        if self.files.len() <= self.places {
            return None;
        }
        let (rank, worst) = self.files.pop_last()?;
        self.keys.remove(&rank.path);
        Some(worst.facts)
    }

    /// Takes a file out.
    pub fn remove(&mut self, path: &str) -> Option<Facts> {
        let (path, key) = self.keys.remove_entry(path)?;
        self.files.remove(&Rank { key, path }).map(|w| w.facts)
    }

    /// Whether it waits in this version; notes that a scan saw it.
    pub fn see(&mut self, path: &str, facts: &Facts) -> bool {
        let Some(key) = self.keys.get(path).copied() else {
            return false;
        };
        let path = path.to_owned();
        let Some(waits) = self.files.get_mut(&Rank { key, path }) else {
            return false;
        };
        waits.round = self.round;
        waits.facts == *facts
    }

    /// A scan begins: what it does not see is dropped by [`Waiting::end_round`].
    pub fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// A whole scan has ended: drops what it did not see.
    pub fn end_round(&mut self) {
        let Self {
            files, keys, round, ..
        } = self;
        files.retain(|rank, waits| {
            let seen = waits.round == *round;
            if !seen {
                keys.remove(&rank.path);
            }
            seen
        });
    }

    /// The facts under which a file waits.
    pub fn get(&self, path: &str) -> Option<Facts> {
        let key = *self.keys.get(path)?;
        self.files
            .get(&Rank {
                key,
                path: path.to_owned(),
            })
            .map(|waits| waits.facts)
    }

    /// Takes the first file out.
    pub fn pop_first(&mut self) -> Option<(String, Facts)> {
        let (rank, waits) = self.files.pop_first()?;
        self.keys.remove(&rank.path);
        Some((rank.path, waits.facts))
    }

    /// What is known of the files that wait here.
    pub fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.files.values().map(|waits| &waits.facts)
    }

    /// Files that wait here.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether no file waits here.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.files.clear();
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Stamp;

    fn facts(mtime_ns: i64) -> Facts {
        Facts {
            stamp: Stamp {
                dev: 1,
                ino: 1,
                size: 1,
                mtime_ns,
            },
            ctime_ns: 0,
        }
    }

    fn drain(order: Order) -> Vec<String> {
        let mut waiting = Waiting::new(order, 3);
        for (path, mtime) in [("d", 4), ("b", 2), ("a", 9), ("c", 1)] {
            waiting.insert(path, facts(mtime));
        }
        std::iter::from_fn(|| waiting.pop_first().map(|(path, _)| path)).collect()
    }

    #[test]
    fn each_order_keeps_its_own_best() {
        assert_eq!(drain(Order::Oldest), ["c", "b", "d"]);
        assert_eq!(drain(Order::Newest), ["a", "d", "b"]);
        assert_eq!(drain(Order::Name), ["a", "b", "c"]);
    }

    #[test]
    fn a_newer_version_takes_the_place_of_the_older_one() {
        let mut waiting = Waiting::new(Order::Oldest, 3);
        waiting.insert("a", facts(1));
        waiting.insert("b", facts(2));
        waiting.insert("a", facts(3));
        assert_eq!((waiting.len(), waiting.get("a")), (2, Some(facts(3))));
        assert_eq!(
            waiting.pop_first().map(|(path, _)| path).as_deref(),
            Some("b")
        );
    }
}
