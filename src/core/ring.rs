//! The bounded FIFO of stranded pairs (S1.5): who is held, and who is released when and why.
//! It holds ids, not sockets; the quarantine does what it says. It never refuses a pair: when
//! there is no place, the earliest is released first.

use std::collections::{BTreeSet, VecDeque};

use super::Mono;
use super::names::ReleaseReason;

/// Bounds of the ring.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Pairs held at most, at least 1.
    pub capacity: usize,
    /// Pairs of one destination held at most, at least 1.
    pub per_destination: usize,
    /// How long a pair is held.
    pub hold: Mono,
    /// Unsent bytes held at most, over all pairs.
    pub max_send_bytes: u64,
}

/// A held pair, as the ring sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The pair's id.
    pub id: u64,
    /// Its destination.
    pub destination: String,
    /// Its final name at that destination, if it was about one.
    pub target: Option<String>,
    /// When it came.
    pub since: Mono,
    /// Its unsent bytes.
    pub bytes: u64,
}

/// A pair that has to be released now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The pair's id.
    pub id: u64,
    /// Why.
    pub reason: ReleaseReason,
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    limits: Limits,
    held: VecDeque<Entry>,
}

impl Ring {
    /// An empty ring.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: VecDeque::with_capacity(limits.capacity),
        }
    }

    /// Other bounds; what they have no room for goes, oldest first.
    pub fn limit(&mut self, limits: Limits) -> Vec<Release> {
        self.limits = limits;
        let mut out = Vec::new();
        while self.held.len() > limits.capacity {
            out.extend(self.release_first(ReleaseReason::Full, |_| true));
        }
        let held = self.held.iter().map(|e| e.destination.clone());
        let destinations: BTreeSet<_> = held.collect();
        for destination in destinations {
            let same = |e: &Entry| e.destination == destination;
            while self.held.iter().filter(|e| same(e)).count() > limits.per_destination {
                out.extend(self.release_first(ReleaseReason::Seats, same));
            }
        }
        out.extend(self.over_memory());
        out
    }

    /// The held pairs, oldest first.
    pub fn held(&self) -> impl Iterator<Item = &Entry> {
        self.held.iter()
    }

    /// Unsent bytes over all pairs.
    pub fn bytes(&self) -> u64 {
        self.held.iter().map(|e| e.bytes).sum()
    }

    /// Takes a pair in. What must go to make room for it is released first, oldest first.
    pub fn put(&mut self, entry: Entry) -> Vec<Release> {
        let mut out = Vec::new();
        while self.held.len() >= self.limits.capacity {
            out.extend(self.release_first(ReleaseReason::Full, |_| true));
        }
        let destination = entry.destination.clone();
        let same = |e: &Entry| e.destination == destination;
        while self.held.iter().filter(|e| same(e)).count() >= self.limits.per_destination {
            out.extend(self.release_first(ReleaseReason::Seats, same));
        }
        self.held.push_back(entry);
        out.extend(self.over_memory());
        out
    }

    /// Time goes on: what was held long enough goes, then what holds too much memory.
    pub fn tick(&mut self, now: Mono) -> Vec<Release> {
        let hold = self.limits.hold;
        let mut out = Vec::new();
        while let Some(release) =
            self.release_first(ReleaseReason::Hold, |e| now.saturating_sub(e.since) >= hold)
        {
            out.push(release);
        }
        out.extend(self.over_memory());
        out
    }

    /// Notes how many unsent bytes a pair holds.
    pub fn weigh(&mut self, id: u64, bytes: u64) {
        if let Some(entry) = self.held.iter_mut().find(|e| e.id == id) {
            entry.bytes = bytes;
        }
    }

    /// The destination has no seat for us: its oldest pair goes.
    pub fn seats(&mut self, destination: &str) -> Option<Release> {
        self.release_first(ReleaseReason::Seats, |e| e.destination == destination)
    }

    /// The file is about to be resumed: its pairs go.
    pub fn resume(&mut self, destination: &str, target: &str) -> Vec<Release> {
        let mut out = Vec::new();
        while let Some(release) = self.release_first(ReleaseReason::Resume, |e| {
            e.destination == destination && e.target.as_deref() == Some(target)
        }) {
            out.push(release);
        }
        out
    }

    /// The service ends: all go, oldest first.
    pub fn shutdown(&mut self) -> Vec<Release> {
        self.held
            .drain(..)
            .map(|e| Release {
                id: e.id,
                reason: ReleaseReason::Shutdown,
            })
            .collect()
    }

    fn release_first(
        &mut self,
        reason: ReleaseReason,
        which: impl Fn(&Entry) -> bool,
    ) -> Option<Release> {
        let place = self.held.iter().position(which)?;
        self.held
            .remove(place)
            .map(|e| Release { id: e.id, reason })
    }

    fn over_memory(&mut self) -> Vec<Release> {
        let mut out = Vec::new();
        while self.bytes() > self.limits.max_send_bytes {
            out.extend(self.release_first(ReleaseReason::Memory, |e| e.bytes > 0));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn limits() -> Limits {
        Limits {
            capacity: 3,
            per_destination: 2,
            hold: Duration::from_secs(600),
            max_send_bytes: 100,
        }
    }

    fn entry(id: u64, destination: &str, bytes: u64) -> Entry {
        Entry {
            id,
            destination: destination.into(),
            target: Some(format!("/in/{id}")),
            since: Duration::from_secs(id),
            bytes,
        }
    }

    fn said(releases: &[Release]) -> Vec<(u64, &'static str)> {
        releases.iter().map(|r| (r.id, r.reason.as_str())).collect()
    }

    #[test]
    fn the_earliest_pair_makes_room_when_the_ring_is_full() {
        let mut ring = Ring::new(limits());
        for id in 1..=3 {
            assert!(ring.put(entry(id, &format!("d{id}"), 0)).is_empty());
        }
        assert_eq!(said(&ring.put(entry(4, "d4", 0))), [(1, "full")]);
        assert_eq!(said(&ring.put(entry(5, "d5", 0))), [(2, "full")]);
        assert_eq!(ring.held().map(|e| e.id).collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn one_destination_cannot_fill_the_ring() {
        let mut ring = Ring::new(limits());
        ring.put(entry(1, "a", 0));
        ring.put(entry(2, "a", 0));
        assert_eq!(said(&ring.put(entry(3, "a", 0))), [(1, "seats")]);
        assert_eq!(
            said(&ring.seats("a").into_iter().collect::<Vec<_>>()),
            [(2, "seats")]
        );
        assert_eq!(ring.seats("b"), None);
    }

    #[test]
    fn hold_memory_resume_and_shutdown_release_the_right_pairs() {
        let mut ring = Ring::new(limits());
        ring.put(entry(1, "a", 60));
        assert_eq!(said(&ring.put(entry(2, "b", 60))), [(1, "memory")]);
        ring.put(entry(3, "c", 0));
        ring.weigh(3, 41);
        assert_eq!(said(&ring.tick(Duration::from_secs(10))), [(2, "memory")]);
        assert_eq!(said(&ring.resume("c", "/in/3")), [(3, "resume")]);
        ring.put(entry(4, "a", 0));
        assert!(ring.tick(Duration::from_secs(603)).is_empty());
        assert_eq!(said(&ring.tick(Duration::from_secs(604))), [(4, "hold")]);
        ring.put(entry(5, "a", 0));
        ring.put(entry(6, "b", 0));
        assert_eq!(said(&ring.shutdown()), [(5, "shutdown"), (6, "shutdown")]);
    }

    #[test]
    fn tighter_bounds_release_what_they_have_no_room_for() {
        let mut ring = Ring::new(limits());
        ring.put(entry(1, "a", 40));
        ring.put(entry(2, "a", 40));
        ring.put(entry(3, "b", 0));
        assert!(ring.limit(limits()).is_empty());
        let one_each = Limits {
            per_destination: 1,
            ..limits()
        };
        assert_eq!(said(&ring.limit(one_each)), [(1, "seats")]);
        let one = Limits {
            capacity: 1,
            ..limits()
        };
        assert_eq!(said(&ring.limit(one)), [(2, "full")]);
        assert!(ring.put(entry(4, "b", 0)).iter().any(|r| r.id == 3));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u64),
        Tick(u64),
        Weigh(u64, u64),
        Seats(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                3 => (0u8..4, 0u64..60).prop_map(|(d, b)| Step::Put(d, b)),
                1 => (0u64..300).prop_map(Step::Tick),
                1 => (0u64..40, 0u64..120).prop_map(|(i, b)| Step::Weigh(i, b)),
                1 => (0u8..4).prop_map(Step::Seats),
            ],
            1..120,
        )
    }

    proptest! {
        /// Every pair is released exactly once, bounds hold after every step, and among the
        /// pairs of one destination the order of release is the order of arrival, memory apart.
        #[test]
        fn bounds_hold_and_no_pair_is_lost(steps in steps()) {
            let mut ring = Ring::new(limits());
            let (mut next, mut now) = (0u64, Duration::ZERO);
            let mut released = std::collections::BTreeSet::new();
            for step in steps {
                let out = match step {
                    Step::Put(d, bytes) => {
                        next += 1;
                        let mut e = entry(next, &format!("d{d}"), bytes);
                        e.since = now;
                        ring.put(e)
                    }
                    Step::Tick(by) => { now += Duration::from_secs(by); ring.tick(now) }
                    Step::Weigh(id, bytes) => { ring.weigh(id, bytes); ring.tick(now) }
                    Step::Seats(d) => ring.seats(&format!("d{d}")).into_iter().collect(),
                };
                for r in out {
                    prop_assert!(released.insert(r.id), "released twice");
                    if r.reason == ReleaseReason::Full {
                        prop_assert!(ring.held().all(|e| e.id > r.id), "not the earliest");
                    }
                }
                prop_assert!(ring.held().count() <= 3);
                prop_assert!(ring.bytes() <= 100);
                for d in 0..4 {
                    let name = format!("d{d}");
                    prop_assert!(ring.held().filter(|e| e.destination == name).count() <= 2);
                }
            }
            released.extend(ring.shutdown().iter().map(|r| r.id));
            prop_assert_eq!(released.len() as u64, next);
        }
    }
}
