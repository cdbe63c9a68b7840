//! One upload attempt as the server may know it, and as the journal has it: its temp name and how
//! far it came. Each stage that something irreversible follows is written before it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::claims::{Claim, Claims};
use super::folder::Folder;
use super::{Stop, WorkerHandle};
use crate::clock::{self, Mono};
use crate::core::journey::Stage;
use crate::failpoint;
use crate::spool::Stamp;
use crate::spool::journal::{Change, Done, Journal, Key, KnownAttempt};

/// One upload attempt as the server may know it: its temp name and how far it came. Written by
/// the worker, read by whoever resolves it, even after the worker was ended.
pub struct Attempt {
    /// The temp name, relative to the route's remote folder.
    pub temp: String,
    /// A `Stage`, with `CLOSED` or without.
    stage: AtomicU8,
    /// Its RNTO was refused, and its temp was seen to stand still.
    refused: AtomicBool,
    /// When it sent a DELE of the final name that was not answered.
    deleting: Mutex<Option<Mono>>,
    sent: OnceLock<Stamp>,
    /// Where in the file it began, and how many attempts in a row had begun no later.
    began_at: AtomicU64,
    in_vain: AtomicU64,
    aim: Mutex<Option<Aim>>,
    claims: Option<(Claims, String)>,
    /// Where its names are, and how often that had been made anew when it began.
    folder: Folder,
    made: AtomicU64,
    /// It stores straight under its final name.
    direct: bool,
    journal: Journal,
    of: Key,
}

/// Beside a stage: its own worker may not publish any more.
const CLOSED: u8 = 0x80;

/// The final name that an attempt has chosen, below the remote folder.
struct Aim {
    name: String,
    /// Nobody else may choose it meanwhile; the attempt that stores over a part shares it.
    claim: Option<Arc<Claim>>,
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
            deleting: Mutex::new(None),
            sent: OnceLock::new(),
            began_at: AtomicU64::new(0),
            in_vain: AtomicU64::new(0),
            aim: Mutex::new(None),
            claims: None,
            folder: Folder::default(),
            made: AtomicU64::new(0),
            direct: false,
            journal,
            of,
        }
    }

    /// One whose names are in that folder.
    #[must_use]
    pub fn within(mut self, folder: Folder) -> Self {
        self.made = AtomicU64::new(folder.made());
        self.folder = folder;
        self
    }

    /// One that stores straight under the final name that it aims at.
    #[must_use]
    pub fn directly(mut self) -> Self {
        self.direct = true;
        self
    }

    /// The name and the stage of its STOR.
    pub fn storing(&self) -> (String, Stage) {
        match self.target() {
            Some(target) if self.direct => (target, Stage::Storing),
            _ => (self.temp.clone(), Stage::Sending),
        }
    }

    /// Its 226 was read. False when a successor has given the attempt up meanwhile.
    pub fn stored(&self) -> bool {
        if !self.direct {
            return true;
        }
        let (storing, stored) = (Stage::Storing as u8, Stage::Stored as u8);
        let moved = self.stage.compare_exchange(storing, stored, SeqCst, SeqCst);
        self.note();
        moved.is_ok()
    }

    /// Whether a part of it, or all of it, may stand under its final name without being delivered.
    pub fn is_torn(&self) -> bool {
        matches!(self.stage(), Stage::Storing | Stage::Stored)
    }

    /// Whether its temp name may be there, now or later.
    pub fn may_leave_temp(&self) -> bool {
        self.stage() != Stage::Opened && !self.is_torn()
    }

    /// Where it claims the name that it chooses, and the folder that the names are in.
    #[must_use]
    pub fn claiming(mut self, claims: Claims, place: String) -> Self {
        self.claims = Some((claims, place));
        self
    }

    /// One that the journal knows from an earlier life; of its own claims it has none yet. Of one
    /// whose names were elsewhere nothing can be told by asking in `folder`.
    pub fn known(
        known: KnownAttempt,
        of: Key,
        journal: Journal,
        claims: Option<(Claims, String)>,
        folder: &Folder,
    ) -> Self {
        let elsewhere = known.place.filter(|place| place != folder.place());
        let lowered = elsewhere.is_some();
        let folder = elsewhere.map_or_else(|| folder.clone(), |place| Folder::at(&place));
        let mut attempt = Self::new(known.temp, of, journal).within(folder);
        attempt.claims = claims;
        if let Some(name) = known.target
            && !attempt.aim(&name)
        {
            // Another attempt of the same file holds it: one stored over the part of the other.
            let aim = Aim { name, claim: None };
            attempt.aim = Mutex::new(Some(aim));
        }
        let stage = match known.stage {
            Stage::Replacing => {
                attempt.note_deleting(Some(clock::mono()));
                Stage::Publishing
            }
            stage => stage,
        };
        attempt.stage.store(stage as u8, SeqCst);
        if let Some(stamp) = known.sent {
            attempt.note_source(stamp);
        }
        if lowered {
            match attempt.stage() {
                Stage::Publishing => attempt.enter(Stage::Sending),
                // What stands under its name here is not its part.
                Stage::Storing | Stage::Stored => attempt.enter(Stage::Opened),
                _ => {}
            }
        }
        attempt
    }

    /// How far it came.
    pub fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(SeqCst) & !CLOSED)
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
            Stage::Publishing | Stage::Replacing => ("publishing-decided", "publishing-stands"),
            Stage::Published | Stage::Marked => ("marking-decided", "marking-stands"),
            Stage::Opened | Stage::Sending | Stage::Storing | Stage::Stored => {
                ("sending-decided", "sending-stands")
            }
        };
        failpoint::at(before);
        let written = handle.write(&self.journal, self.change());
        failpoint::at(after);
        written
    }

    /// Whether a later life is to know of it.
    pub fn is_journalled(&self) -> bool {
        self.journal.is_kept()
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
        let stage = match self.stage() {
            Stage::Publishing if self.deleting().is_some() => Stage::Replacing,
            stage => stage,
        };
        Change::Attempt {
            of: self.of.clone(),
            temp: self.temp.clone(),
            stage,
            sent: self.source(),
            target: self.target(),
            place: Some(Arc::clone(self.folder.place())).filter(|place| !place.is_empty()),
        }
    }

    /// Chooses the final name, below the remote folder; false if another attempt has it.
    pub fn aim(&self, name: &str) -> bool {
        let mut aim = self.aim.lock().unwrap_or_else(PoisonError::into_inner);
        if aim.as_ref().is_some_and(|aim| aim.name == name) {
            return true;
        }
        let claim = match &self.claims {
            None => None,
            Some((claims, place)) => match claims.take(place.clone(), name.to_owned()) {
                None => return false,
                claim => claim,
            },
        };
        *aim = Some(Aim {
            name: name.to_owned(),
            claim: claim.map(Arc::new),
        });
        true
    }

    /// Aims where `torn` did, whose part it is going to store over.
    pub fn aim_like(&self, torn: &Self) {
        let theirs = torn.aim.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = theirs.as_ref().map(|aim| Aim {
            name: aim.name.clone(),
            claim: aim.claim.clone(),
        });
        drop(theirs);
        *self.aim.lock().unwrap_or_else(PoisonError::into_inner) = shared;
    }

    /// The final name that it has chosen.
    pub fn target(&self) -> Option<String> {
        let aim = self.aim.lock().unwrap_or_else(PoisonError::into_inner);
        aim.as_ref().map(|aim| aim.name.clone())
    }

    /// A successor gives up an attempt that was still sending: from here on it cannot come to be
    /// published, however late its worker goes on. False when it is past that.
    pub fn give_up(&self) -> bool {
        let opened = Stage::Opened as u8;
        let given_up = [Stage::Sending, Stage::Storing, Stage::Stored]
            .into_iter()
            .any(|from| {
                let given_up = |stage| (stage & !CLOSED == from as u8).then_some(opened);
                self.stage.fetch_update(SeqCst, SeqCst, given_up).is_ok()
            });
        if given_up {
            self.note();
            // Whoever goes on with it may choose that name.
            *self.aim.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        given_up
    }

    /// A successor takes over the bytes of an attempt that was still sending: it cannot come to be
    /// published by its own worker any more, but it stays in doubt until the successor has its
    /// temp. False when it is past that.
    pub fn take_over(&self) -> bool {
        let sending = Stage::Sending as u8;
        let closed = |stage| (stage & !CLOSED == sending).then_some(sending | CLOSED);
        self.stage.fetch_update(SeqCst, SeqCst, closed).is_ok()
    }

    /// Whether what it left can be a part of this version of the source.
    pub fn holds_part_of(&self, version: Stamp) -> bool {
        self.stage() == Stage::Sending && self.source() == Some(version)
    }

    /// It begins at this byte of the file, in the place of `old`. Returns how many attempts in a
    /// row have begun no later than the one before.
    pub fn begin_at(&self, byte: u64, old: &Self) -> u64 {
        let gained = byte > old.began_at.load(SeqCst);
        let in_vain = if gained {
            0
        } else {
            old.in_vain.load(SeqCst) + 1
        };
        self.began_at.store(byte, SeqCst);
        self.in_vain.store(in_vain, SeqCst);
        in_vain
    }

    /// The byte of the file at which it begins.
    pub fn begins_at(&self) -> u64 {
        match self.began_at.load(SeqCst) {
            // Spoilt.
            u64::MAX => 0,
            byte => byte,
        }
    }

    /// The server did not let it go on there: whoever follows it must not try that again.
    pub fn begun_in_vain(&self) {
        self.in_vain.store(u64::MAX / 2, SeqCst);
    }

    /// What it left is not what was sent: whoever follows it begins at the start.
    pub fn spoilt(&self) {
        self.began_at.store(u64::MAX, SeqCst);
        self.begun_in_vain();
    }

    /// It begins at the start of the file after all.
    pub fn begin_anew(&self) {
        self.began_at.store(0, SeqCst);
        self.in_vain.store(0, SeqCst);
    }

    fn deleting(&self) -> Option<Mono> {
        *self.deleting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A DELE of the final name is sent next, or was answered. Before it is sent that has to stand
    /// in the journal, see [`Self::journalled`]; that it was answered rides along with what follows.
    pub fn note_deleting(&self, since: Option<Mono>) {
        *self.deleting.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Whether a server may still execute its DELE, which is given so long for it.
    pub fn may_delete_late(&self, now: Mono, hold: Duration) -> bool {
        self.deleting().is_some_and(|since| now < since + hold)
    }

    /// It follows these, whose DELE would meet its file.
    pub fn may_delete_like(&self, old: &[Arc<Self>]) {
        let last = old.iter().filter_map(|a| a.deleting()).max();
        *self.deleting.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// The path below the spool of the file that it is about.
    pub fn path(&self) -> &str {
        &self.of.path
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
            Stage::Publishing | Stage::Replacing => self.refused.load(SeqCst),
            // A part may be seen: it is taken away or stored over first.
            Stage::Published | Stage::Marked | Stage::Storing | Stage::Stored => false,
        }
    }

    /// Its file is given up; false if it may have been published after all.
    pub fn abandon(&self) -> bool {
        if !self.is_torn() && self.give_up() {
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
        let before = Stage::from_u8(self.stage.swap(stage as u8, SeqCst) & !CLOSED);
        if before == Stage::Opened {
            self.made.store(self.folder.made(), SeqCst);
        }
        if stage == Stage::Opened && !self.direct {
            // Nothing of it can come to stand under that name any more.
            *self.aim.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        if stage < before || matches!(stage, Stage::Published | Stage::Marked) {
            self.note();
        }
    }

    /// Where its folder was made anew since it began, its names are gone with the old one: their
    /// absence proves nothing. Sent again at worst, never lost.
    pub fn turn_back(&self) {
        if self.made.load(SeqCst) == self.folder.made() {
            return;
        }
        match self.stage() {
            Stage::Publishing => self.enter(Stage::Sending),
            Stage::Stored => self.enter(Stage::Storing),
            _ => {}
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
    fn an_attempt_whose_bytes_were_taken_over_stays_in_doubt_but_is_not_published() {
        let attempt = attempt();
        assert!(!attempt.take_over());
        attempt.enter(Stage::Sending);
        assert!(attempt.take_over() && attempt.take_over());
        assert!(!attempt.begin_publishing());
        assert_eq!(attempt.stage(), Stage::Sending);
        assert!(attempt.give_up());
        assert_eq!(attempt.stage(), Stage::Opened);
        let publishing = self::attempt();
        publishing.enter(Stage::Publishing);
        assert!(!publishing.take_over());
    }

    #[test]
    fn attempts_that_begin_no_later_than_their_elders_are_counted() {
        let chain = [attempt(), attempt(), attempt(), attempt(), attempt()];
        let begun = [0, 5, 5, 4, 9];
        let counts: Vec<u64> = (1..chain.len())
            .map(|i| chain[i].begin_at(begun[i], &chain[i - 1]))
            .collect();
        assert_eq!(counts, [0, 1, 2, 0]);
        chain[4].spoilt();
        assert!(attempt().begin_at(99, &chain[4]) > 3);
    }

    #[test]
    fn attempts_of_an_earlier_life_know_their_name_even_if_they_share_it() {
        let claims = Some((Claims::default(), "d".to_owned()));
        let known = || {
            let known = KnownAttempt {
                temp: "t".into(),
                stage: Stage::Storing,
                sent: None,
                target: Some("f-1".into()),
                place: None,
            };
            let of = attempt().of;
            let folder = Folder::default();
            Attempt::known(known, of, Journal::none(), claims.clone(), &folder)
        };
        let both = [known(), known()];
        assert!(both.iter().all(|a| a.target().as_deref() == Some("f-1")));
    }

    #[test]
    fn an_absent_name_proves_nothing_elsewhere_or_in_a_folder_that_was_made_since() {
        let there = Folder::at("there");
        let known = |stage, place: &str| {
            let known = KnownAttempt {
                temp: "t".into(),
                stage,
                sent: None,
                target: Some("f".into()),
                place: Some(place.into()),
            };
            Attempt::known(known, attempt().of, Journal::none(), None, &there)
        };
        for (stage, elsewhere, made_since) in [
            (Stage::Sending, Stage::Sending, Stage::Sending),
            (Stage::Publishing, Stage::Sending, Stage::Sending),
            (Stage::Published, Stage::Published, Stage::Published),
            (Stage::Storing, Stage::Opened, Stage::Storing),
            (Stage::Stored, Stage::Opened, Stage::Storing),
        ] {
            assert_eq!(known(stage, "here").stage(), elsewhere);
            let same = known(stage, "there");
            same.turn_back();
            assert_eq!(same.stage(), stage);
            there.remake();
            same.turn_back();
            assert_eq!(same.stage(), made_since);
        }
        let late = attempt().within(there.clone());
        there.remake();
        late.enter(Stage::Publishing);
        late.turn_back();
        assert_eq!(late.stage(), Stage::Publishing, "it began in the new one");
    }

    #[test]
    fn a_part_that_was_given_up_is_not_counted_by_a_late_226() {
        let late = attempt().directly();
        assert!(late.aim("f"));
        assert_eq!(late.storing(), ("f".to_owned(), Stage::Storing));
        late.enter(Stage::Storing);
        assert!(late.is_torn() && !late.may_leave_temp());
        let fresh = attempt().directly();
        fresh.aim_like(&late);
        assert!(late.give_up() && !late.stored());
        assert_eq!(
            (late.stage(), fresh.target()),
            (Stage::Opened, Some("f".into()))
        );
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
