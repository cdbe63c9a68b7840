//! What a route offers: settled files in order, as many as the daemon has asked for, each looked
//! at once more before it goes out. And the sums that are told of the spool.

use std::io;
use std::time::Duration;

use slog::warn;

use super::{Candidate, FOUND_MAX, Report, State, Work};
use crate::spool::marker;
use crate::spool::scan::Totals;
use crate::spool::settle::{Sight, Verdict, is_fresh};
use crate::spool::source::{SourceError, open_in};
use crate::spool::{Facts, Now};
use crate::sys::file::{self, Writers};

/// Out of descriptors or memory: offers pause.
const PAUSE: Duration = Duration::from_secs(1);
/// The sums are told at most so often.
const STATE_GAP: Duration = Duration::from_secs(1);

impl Work {
    pub(super) fn can_offer(&self) -> bool {
        self.credit > 0 && !self.waiting.is_empty()
    }

    /// Offers what may go, in messages of bounded size.
    pub(super) fn offer(&mut self, now: Now) {
        while self.can_offer() && now.mono >= self.no_offer_before {
            let batch = self.next_batch(now);
            if !batch.is_empty() {
                self.out.push_back(Report::Found(batch));
                self.moved_on = true;
            }
            self.state_changed = true;
        }
        self.refill();
    }

    fn next_batch(&mut self, now: Now) -> Vec<Candidate> {
        let mut batch = Vec::new();
        while self.credit > 0 && batch.len() < FOUND_MAX && now.mono >= self.no_offer_before {
            let Some((path, facts)) = self.waiting.pop_first() else {
                break;
            };
            if self.may_go(&path, facts, now) {
                self.memory.offer(&path, facts.stamp);
                self.credit -= 1;
                batch.push(Candidate {
                    path,
                    stamp: facts.stamp,
                });
            }
        }
        batch
    }

    /// The last look before a file goes out: still what settled, readable, nobody writing.
    fn may_go(&mut self, path: &str, facts: Facts, now: Now) -> bool {
        let Some(root) = self.folder.root() else {
            return false;
        };
        let verdict = match open_in(root, path) {
            Ok((_, found)) if found != facts => self.settle.observe(path, found, Sight::Seen, now),
            Ok((file, _)) if file::writers(&file) == Writers::Some => {
                self.settle.hold(path, facts, now)
            }
            Ok(_) if is_fresh(&facts, now) => self.settle.let_pass(path, facts, now),
            Ok(_) => return self.is_released(path),
            Err(error) => {
                self.refused(path, facts, &error, now);
                return false;
            }
        };
        match verdict {
            Verdict::Waits => {}
            Verdict::Full => self.leave(&facts.stamp),
            // Changed, but long ago (its times were set back): it has a new place in the order.
            Verdict::Settled => self.look_at(path, Sight::Seen, false),
        }
        false
    }

    /// Whether its marker (still) stands beside it, where the route waits for one; that one is
    /// remembered: it goes with the source. Without it the file is not ours to look at; the
    /// marker's coming is an event of its own, and each scan asks for it.
    fn is_released(&mut self, path: &str) -> bool {
        let Some(marker) = marker::path_of(&self.route, path) else {
            return true;
        };
        let found = self
            .folder
            .root()
            .and_then(|root| marker::look(root, &marker));
        if let Some(marker) = found {
            self.memory.mark(path, marker);
        }
        found.is_some()
    }

    fn refused(&mut self, path: &str, facts: Facts, error: &SourceError, now: Now) {
        let out_of = |error: &io::Error| {
            matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
            )
        };
        match error {
            SourceError::Vanished => {}
            SourceError::NotRegular => self.look_at(path, Sight::Seen, false),
            SourceError::Denied => {
                self.memory.refuse(path, &facts);
                self.say(path.as_bytes(), "the service may not read it");
            }
            SourceError::Io(error) if out_of(error) => {
                warn!(self.log, "files cannot be opened"; "error" => %error,
                    "next" => "tried again in 1 s");
                self.no_offer_before = now.mono + PAUSE;
                self.enqueue(path, facts);
            }
            SourceError::Io(error) => {
                self.memory.refuse(path, &facts);
                self.say(path.as_bytes(), &format!("it cannot be opened: {error}"));
            }
        }
    }

    /// Tells the spool's state where it changed since it was told.
    pub(super) fn tell_state(&mut self, now: Now) {
        if !self.state_changed || self.unread || now.mono < self.no_state_before {
            return;
        }
        self.state_changed = false;
        let state = self.state();
        if self.state_told.as_ref() != Some(&state) {
            self.no_state_before = now.mono + STATE_GAP;
            self.state_told = Some(state.clone());
            self.out.push_back(Report::State(state));
        }
    }

    fn state(&self) -> State {
        let mut sums: Totals = self.rest;
        self.settle.facts().for_each(|facts| sums.add(&facts.stamp));
        self.waiting
            .facts()
            .for_each(|facts| sums.add(&facts.stamp));
        self.memory.offered().for_each(|stamp| sums.add(stamp));
        State {
            problem: self.folder.problem().map(str::to_owned),
            files: sums.files,
            settling: self.settle.len() as u64,
            bytes: sums.bytes,
            oldest_mtime: sums.oldest_ns.map(|ns| ns as f64 / 1e9),
            dead_letters: self.dead_letters.letters,
        }
    }
}
