//! When a file is settled: renamed into the spool, at once; else after `settle` without a change
//! of size, times or identity. Decides only: facts and clocks come as parameters, nothing is
//! looked at here. Bounded: beyond its places it says `Full` and a later scan brings the file.
//! Promises that every file in it comes due, also one whose times lie in the future.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Facts, Now};
use crate::clock::Mono;

/// The shortest and the longest pause before a file that is open for writing is looked at again;
/// its closing is told by inotify, this is for where that tells nothing.
const HOLD_MIN: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(16);

/// A file given back by the daemon rests at least so long, so that one that fails at once and
/// every time (with `settle = 0`) cannot go round in a hot loop.
const REST_MIN: Duration = Duration::from_secs(1);

/// How a file came to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It was just renamed to this name: whole, by the oldest convention there is.
    MovedIn,
    /// It is there.
    Seen,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be sent; it is not remembered here any more.
    Settled,
    /// It is remembered and comes due by itself.
    Waits,
    /// No place: a later scan must find it again.
    Full,
}

#[derive(Debug)]
struct Entry {
    facts: Facts,
    /// Since when nothing about it changed.
    quiet_since: Mono,
    /// When to look again.
    due: Mono,
    /// Not settled before this time, whatever its facts say.
    not_before: Mono,
    /// It had settled already: unless it changes, there is nothing more to wait for.
    rested: bool,
    /// The next rename to this name is our own putting back, no producer's.
    own_rename: bool,
    /// The scan that last saw it.
    round: u64,
}

/// The files that are not settled yet.
#[derive(Debug)]
pub struct Settle {
    settle: Duration,
    places: usize,
    entries: HashMap<String, Entry>,
    queue: BTreeSet<(Mono, String)>,
    round: u64,
}

impl Settle {
    /// An empty set with a bound on its places.
    pub fn new(settle: Duration, places: usize) -> Self {
        let (entries, queue) = (HashMap::new(), BTreeSet::new());
        Self {
            settle,
            places,
            entries,
            queue,
            round: 0,
        }
    }

    /// Takes note of what a look at the file found.
    pub fn observe(&mut self, path: &str, facts: Facts, sight: Sight, now: Now) -> Verdict {
        let Some(mut entry) = self.take(path) else {
            return self.first_sight(path, facts, sight, now);
        };
        let changed = entry.facts != facts;
        if changed {
            entry.facts = facts;
            entry.quiet_since = now.mono;
            entry.rested = false;
        }
        let moved_in = sight == Sight::MovedIn && !std::mem::take(&mut entry.own_rename);
        let quiet = now.mono.saturating_sub(entry.quiet_since);
        let settled = entry.rested || quiet >= self.settle;
        if moved_in || (settled && now.mono >= entry.not_before) {
            return Verdict::Settled;
        }
        entry.due = match entry.rested {
            true => entry.not_before,
            false => (entry.quiet_since + self.settle).max(entry.not_before),
        };
        entry.round = self.round;
        self.put(path, entry);
        Verdict::Waits
    }

    /// The time of its last change tells how long an unknown file has been quiet. A time in the
    /// future (a clock that was set, another machine's) tells nothing: it waits from now on.
    fn first_sight(&mut self, path: &str, facts: Facts, sight: Sight, now: Now) -> Verdict {
        let quiet = age(&facts, now).min(self.settle);
        if sight == Sight::MovedIn || quiet >= self.settle {
            return Verdict::Settled;
        }
        let quiet_since = now.mono.saturating_sub(quiet);
        self.admit(
            path,
            facts,
            quiet_since,
            now.mono + (self.settle - quiet),
            Mono::ZERO,
        )
    }

    /// The daemon gave it back, or it was put back after it changed: it settles anew from now.
    /// `own_rename` says that the name was just made by a rename of ours.
    pub fn restart(&mut self, path: &str, facts: Facts, own_rename: bool, now: Now) -> Verdict {
        self.take(path);
        let due = now.mono + self.settle.max(REST_MIN);
        let verdict = self.admit(path, facts, now.mono, due, due);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.own_rename = own_rename;
        }
        verdict
    }

    /// It is settled but somebody has it open for writing: look again, the more seldom the
    /// longer nothing was written.
    pub fn hold(&mut self, path: &str, facts: Facts, now: Now) -> Verdict {
        self.take(path);
        let pause = (age(&facts, now) / 4).clamp(HOLD_MIN, HOLD_MAX);
        self.admit_rested(path, facts, now.mono + pause, now)
    }

    /// It is settled, but was written so short a time ago that the kernel could give a change of
    /// now the same time: its version would not tell one from the other. Looked at again once
    /// that is past.
    pub fn let_pass(&mut self, path: &str, facts: Facts, now: Now) -> Verdict {
        self.take(path);
        self.admit_rested(path, facts, now.mono + tick(&facts), now)
    }

    fn admit_rested(&mut self, path: &str, facts: Facts, due: Mono, now: Now) -> Verdict {
        let verdict = self.admit(path, facts, now.mono, due, Mono::ZERO);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.rested = true;
        }
        verdict
    }

    /// Another time to settle: what `takes` does not take is dropped, the rest comes due by it.
    pub fn renew(&mut self, settle: Duration, takes: impl Fn(&str) -> bool) {
        self.settle = settle;
        self.entries.retain(|path, _| takes(path));
        self.queue.clear();
        for (path, entry) in &mut self.entries {
            // A look too early costs nothing: it sets the time anew.
            let due = (entry.quiet_since + settle).max(entry.not_before);
            entry.due = entry.due.min(due);
            self.queue.insert((entry.due, path.clone()));
        }
    }

    /// Drops a file that is gone; tells what was known of it.
    pub fn forget(&mut self, path: &str) -> Option<Facts> {
        self.take(path).map(|entry| entry.facts)
    }

    /// A file that is due, if any. The caller looks at it and calls [`Settle::observe`] or
    /// [`Settle::forget`]; either takes it off the front.
    pub fn first_due(&self, now: Mono) -> Option<String> {
        self.queue
            .first()
            .filter(|(due, _)| *due <= now)
            .map(|(_, path)| path.clone())
    }

    /// When the next file comes due.
    pub fn next_due(&self) -> Option<Mono> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// A scan begins: what it does not see is dropped by [`Settle::end_round`].
    pub fn begin_round(&mut self) {
        self.round += 1;
    }

    /// A whole scan has ended: drops what it did not see.
    pub fn end_round(&mut self) {
        let round = self.round;
        let Self { entries, queue, .. } = self;
        entries.retain(|path, entry| {
            let seen = entry.round == round;
            if !seen {
                queue.remove(&(entry.due, path.clone()));
            }
            seen
        });
    }

    /// Files that wait here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no file waits here.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether this file waits here.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Whether it waits here in this version; notes that a scan saw it.
    pub fn see(&mut self, path: &str, facts: &Facts) -> bool {
        let Some(entry) = self.entries.get_mut(path) else {
            return false;
        };
        entry.round = self.round;
        entry.facts == *facts
    }

    /// What is known of the files that wait here.
    pub fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.entries.values().map(|entry| &entry.facts)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.queue.clear();
    }

    fn admit(
        &mut self,
        path: &str,
        facts: Facts,
        quiet_since: Mono,
        due: Mono,
        not_before: Mono,
    ) -> Verdict {
        if self.entries.len() >= self.places {
            return Verdict::Full;
        }
        let round = self.round;
        let entry = Entry {
            facts,
            quiet_since,
            due,
            not_before,
            rested: false,
            own_rename: false,
            round,
        };
        self.put(path, entry);
        Verdict::Waits
    }

    fn take(&mut self, path: &str) -> Option<Entry> {
        let (path, entry) = self.entries.remove_entry(path)?;
        self.queue.remove(&(entry.due, path));
        Some(entry)
    }

    fn put(&mut self, path: &str, entry: Entry) {
        self.queue.insert((entry.due, path.to_owned()));
        self.entries.insert(path.to_owned(), entry);
    }
}

/// How long the kernel may give changes the same time: its clock for files ticks every 10 ms at
/// the coarsest; some file systems keep whole seconds only (FAT: two).
fn tick(facts: &Facts) -> Duration {
    match facts.stamp.mtime_ns % 1_000_000_000 {
        0 => Duration::from_secs(3),
        _ => Duration::from_millis(20),
    }
}

/// Whether a change of now might get the time that the file has already. A time in the far
/// future was set by somebody: a change would give it another.
pub(super) fn is_fresh(facts: &Facts, now: Now) -> bool {
    let age = now.unix_ns.saturating_sub(facts.stamp.mtime_ns);
    u128::from(age.unsigned_abs()) < tick(facts).as_nanos()
}

/// How long ago anything about the file last changed; nothing for a time in the future.
fn age(facts: &Facts, now: Now) -> Duration {
    let age_ns = now.unix_ns.saturating_sub(facts.ctime_ns).max(0);
    Duration::from_nanos(age_ns.unsigned_abs())
}
