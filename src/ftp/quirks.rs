//! What a server was found to be like, one value for each destination, shared by all its sessions:
//! what one learned the next one knows, and it is told once. All of it is forgotten a day after the
//! first of it was learned: servers are upgraded, and asking again costs a refused command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slog::info;

use super::{Features, Session};
use crate::clock::{self, Mono};
use crate::log::escape;

/// After this time all is asked anew.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A way in which a server is not as most are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// EPSV is refused.
    NoEpsv,
    /// EPSV names ports that cannot be connected to, PASV names ports that can.
    DeadEpsv,
    /// SIZE is not known.
    NoSize,
    /// REST is refused.
    NoRest,
    /// MLSD is not known.
    NoMlsd,
    /// RNTO over a file that is there is refused.
    NoOverwrite,
    /// The time of a file cannot be set.
    NoTimes,
}

use Quirk::{DeadEpsv, NoEpsv, NoMlsd, NoOverwrite, NoRest, NoSize, NoTimes};

impl Quirk {
    const ALL: [Self; 7] = [
        NoEpsv,
        DeadEpsv,
        NoSize,
        NoRest,
        NoMlsd,
        NoOverwrite,
        NoTimes,
    ];

    /// For a person: what was found, and what is done about it.
    pub fn shown(self) -> (&'static str, &'static str) {
        match self {
            NoEpsv => ("EPSV is refused", "PASV is used"),
            DeadEpsv => (
                "the ports that EPSV names cannot be connected to",
                "PASV is used, whose ports can",
            ),
            NoSize => (
                "no SIZE",
                "the 226 and the number of bytes sent are all there is to believe",
            ),
            NoRest => ("no REST", "what was broken off is sent from its start"),
            NoMlsd => ("no MLSD", "the plain listings are used"),
            NoOverwrite => (
                "a rename over a file is refused",
                "once the new file is whole under its temp name the old one is deleted first",
            ),
            NoTimes => (
                "the time of a file cannot be set",
                "files bear the time of their upload",
            ),
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

#[derive(Debug, Default)]
struct Known {
    bits: u8,
    /// What FEAT said; the inner one is none where the server does not know it.
    features: Option<Option<Arc<Features>>>,
    /// Since when something is known.
    since: Option<Mono>,
}

/// What is known of a destination; clones are one.
#[derive(Debug, Clone, Default)]
pub struct Quirks(Arc<Mutex<Known>>);

impl Quirks {
    /// The sessions of several workers share it; it is held for a copy, never over a wait.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this was found.
    pub fn has(&self, quirk: Quirk) -> bool {
        self.known().bits & quirk.bit() != 0
    }

    /// All that was found.
    pub fn found(&self) -> Vec<Quirk> {
        let all = Quirk::ALL.into_iter();
        all.filter(|quirk| self.has(*quirk)).collect()
    }

    /// True if it was not known.
    fn learn(&self, quirk: Quirk, now: Mono) -> bool {
        let mut known = self.known();
        let new = known.bits & quirk.bit() == 0;
        known.bits |= quirk.bit();
        known.since.get_or_insert(now);
        new
    }

    /// It does not hold any more.
    pub(super) fn forget(&self, quirk: Quirk) {
        self.known().bits &= !quirk.bit();
    }

    pub(super) fn features(&self) -> Option<Option<Arc<Features>>> {
        self.known().features.clone()
    }

    pub(super) fn note_features(&self, features: Option<Arc<Features>>, now: Mono) {
        let mut known = self.known();
        known.features = Some(features);
        known.since.get_or_insert(now);
    }

    /// At the begin of a session: what is too old is forgotten.
    pub(super) fn refresh(&self, now: Mono) {
        let mut known = self.known();
        if known.since.is_some_and(|since| now > since + KEPT) {
            *known = Known::default();
        }
    }
}

impl Session {
    /// What is known of the server.
    pub fn quirks(&self) -> &Quirks {
        &self.setup.quirks
    }

    /// Takes note of it and tells it, if it was not known; `seen` is the reply or error it was
    /// learned from.
    pub(super) fn learn(&self, quirk: Quirk, seen: &str) {
        let setup = &self.setup;
        if setup.quirks.learn(quirk, clock::mono()) {
            let (way, next) = quirk.shown();
            info!(setup.log, "the server has a way of its own"; "way" => way,
                "server" => setup.route.server.key(), "error" => escape(seen).into_owned(),
                "next" => next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_clone_learns_the_other_knows_for_a_day() {
        let (quirks, now) = (Quirks::default(), Mono::from_secs(5));
        let other = quirks.clone();
        assert!(other.learn(NoSize, now));
        assert!(!quirks.learn(NoSize, now));
        other.note_features(None, now);
        quirks.refresh(now + KEPT);
        assert!(quirks.has(NoSize) && quirks.features().is_some());
        quirks.learn(NoRest, now + KEPT);
        assert_eq!(other.found(), [NoSize, NoRest]);
        other.forget(NoSize);
        assert_eq!(quirks.found(), [NoRest]);
        quirks.refresh(now + KEPT + Duration::from_secs(1));
        assert!(other.found().is_empty() && other.features().is_none());
    }
}
