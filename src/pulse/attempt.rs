//! One upload attempt as the server may know it, and as the journal has it: its temp name and how
//! far it came. Each stage that something irreversible follows is written before it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};

use super::{Stop, WorkerHandle};
use crate::core::journey::Stage;
use crate::failpoint;
use crate::spool::Stamp;
use crate::spool::journal::{Change, Done, Journal, Key, KnownAttempt};

/// One upload attempt as the server may know it: its temp name and how far it came. Written by
/// the worker, read by whoever resolves it, even after the worker was ended.
pub struct Attempt {
    /// The temp name, relative to the route's remote folder.
    pub temp: String,
    stage: AtomicU8,
    /// Its RNTO was refused, and its temp was seen to stand still.
    refused: AtomicBool,
    sent: OnceLock<Stamp>,
    journal: Journal,
    of: Key,
}

/// The journal cannot be written: the step that was to follow must not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritten;

impl Attempt {
    /// An attempt of which the server knows nothing yet.
    pub fn new(temp: String, of: Key, journal: Journal) -> Self {
        Self {
            temp,
            stage: AtomicU8::new(Stage::Opened as u8),
            refused: AtomicBool::new(false),
            sent: OnceLock::new(),
            journal,
            of,
        }
    }

    /// One that the journal knows from an earlier life.
    pub fn known(known: KnownAttempt, of: Key, journal: Journal) -> Self {
        let attempt = Self::new(known.temp, of, journal);
        attempt.stage.store(known.stage as u8, SeqCst);
        if let Some(stamp) = known.sent {
            attempt.note_source(stamp);
        }
        attempt
    }

    /// How far it came.
    pub fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(SeqCst))
    }

    /// Its own worker goes from sending to publishing: the last step before the first RNFR. False
    /// when a successor has given the attempt up meanwhile: then nothing may be sent any more.
    pub fn begin_publishing(&self) -> bool {
        let (sending, publishing) = (Stage::Sending as u8, Stage::Publishing as u8);
        self.refused.store(false, SeqCst);
        let moved = self
            .stage
            .compare_exchange(sending, publishing, SeqCst, SeqCst);
        moved.is_ok() || moved == Err(publishing)
    }

    /// Waits until its present stage stands in the journal: the step before whatever the server
    /// cannot take back.
    ///
    /// # Errors
    /// The worker was stopped, or the journal cannot be written: then the step must not be taken.
    pub fn journalled(&self, handle: &WorkerHandle) -> Result<Result<(), Unwritten>, Stop> {
        let (before, after) = match self.stage() {
            Stage::Publishing | Stage::Published => ("publishing-decided", "publishing-stands"),
            Stage::Opened | Stage::Sending => ("sending-decided", "sending-stands"),
        };
        failpoint::at(before);
        let written = handle.write(&self.journal, self.change());
        failpoint::at(after);
        written
    }

    /// Writes it into a journal that has begun anew, if the server may know of it.
    pub fn note_anew(&self) {
        if self.stage() != Stage::Opened {
            self.note();
        }
    }

    fn note(&self) {
        // Left out where there is no room: what the journal says is the more doubtful stage then.
        self.journal.put(self.change(), Done::Nobody);
    }

    fn change(&self) -> Change {
        Change::Attempt {
            of: self.of.clone(),
            temp: self.temp.clone(),
            stage: self.stage(),
            sent: self.source(),
        }
    }

    /// A successor gives up an attempt that was still sending: from here on it cannot come to be
    /// published, however late its worker goes on. False when it is past that.
    pub fn give_up(&self) -> bool {
        let (sending, opened) = (Stage::Sending as u8, Stage::Opened as u8);
        let moved = self.stage.compare_exchange(sending, opened, SeqCst, SeqCst);
        if moved.is_ok() {
            self.note();
        }
        moved.is_ok()
    }

    /// Its last RNTO was refused and its temp stands: it is complete, and not published. A successor
    /// may still publish it.
    pub fn note_refused(&self) {
        self.refused.store(true, SeqCst);
    }

    /// Whether its file may be given up: it cannot have been published, and nobody is at it.
    pub fn may_be_abandoned(&self) -> bool {
        match self.stage() {
            Stage::Opened | Stage::Sending => true,
            Stage::Publishing => self.refused.load(SeqCst),
            Stage::Published => false,
        }
    }

    /// Its file is given up; false if it may have been published after all.
    pub fn abandon(&self) -> bool {
        if self.give_up() {
            return true;
        }
        let gone = self.may_be_abandoned();
        if gone {
            self.enter(Stage::Opened);
        }
        gone
    }

    /// It enters a stage, or (after a clear refusal) returns to an earlier one.
    /// The journal follows in its own time: what it says meanwhile is the more doubtful stage. What
    /// has to stand there before the next step is waited for by [`Self::journalled`].
    pub fn enter(&self, stage: Stage) {
        let before = Stage::from_u8(self.stage.swap(stage as u8, SeqCst));
        if stage < before || stage == Stage::Published {
            self.note();
        }
    }

    /// Notes the version of the source that is sent; the first one counts.
    pub fn note_source(&self, stamp: Stamp) {
        let _ = self.sent.set(stamp);
    }

    /// The version of the source that was sent.
    pub fn source(&self) -> Option<Stamp> {
        self.sent.get().copied()
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.stage(), self.temp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt {
        let of = Key {
            route: "r".into(),
            path: "p".into(),
        };
        Attempt::new("t".into(), of, Journal::none())
    }

    #[test]
    fn an_attempt_that_a_successor_gave_up_is_not_published_any_more() {
        let attempt = attempt();
        attempt.enter(Stage::Sending);
        assert!(attempt.give_up());
        assert!(!attempt.begin_publishing());
        assert_eq!(attempt.stage(), Stage::Opened);
    }

    #[test]
    fn only_what_cannot_have_been_published_is_abandoned() {
        let attempt = attempt();
        attempt.enter(Stage::Sending);
        assert!(attempt.may_be_abandoned() && attempt.begin_publishing());
        assert!(!attempt.may_be_abandoned() && !attempt.abandon());
        attempt.note_refused();
        assert!(attempt.may_be_abandoned());
        assert!(attempt.begin_publishing() && !attempt.may_be_abandoned());
        attempt.note_refused();
        assert!(attempt.abandon());
        assert_eq!(attempt.stage(), Stage::Opened);
        attempt.enter(Stage::Published);
        assert!(!attempt.abandon());
    }

    #[test]
    fn an_attempt_that_began_to_publish_cannot_be_given_up() {
        let attempt = attempt();
        attempt.enter(Stage::Sending);
        assert!(attempt.begin_publishing() && attempt.begin_publishing());
        assert!(!attempt.give_up());
        assert_eq!(attempt.stage(), Stage::Publishing);
    }
}
