//! The script of a server: its login, its ways and its faults. It owns the counting of occasions: one
//! occasion is taken by at most one fault, the first in the list that holds, and two sessions can
//! never take the same one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::fault::{Fault, Holds, Kind, Way};
use super::quirk::Quirk;
use super::tls::Tls;

/// What a server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Name that USER must give.
    pub user: String,
    /// Password that PASS must give.
    pub password: String,
    /// The faults, in order of precedence.
    pub faults: Vec<Fault>,
    /// What the server is like beside them.
    pub quirks: Vec<Quirk>,
    /// How it speaks TLS, if it does.
    pub tls: Option<Tls>,
    /// Listens on `[::1]` in place of 127.0.0.1.
    pub ipv6: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self::healthy()
    }
}

impl Script {
    /// No fault.
    pub fn healthy() -> Self {
        Self {
            user: "lab".to_owned(),
            password: "lab".to_owned(),
            faults: Vec::new(),
            quirks: Vec::new(),
            tls: None,
            ipv6: false,
        }
    }

    /// With these ways.
    #[must_use]
    pub fn like(self, quirks: impl IntoIterator<Item = Quirk>) -> Self {
        Self {
            quirks: quirks.into_iter().collect(),
            ..self
        }
    }

    /// With TLS.
    #[must_use]
    pub fn over(self, tls: Tls) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    /// On IPv6.
    #[must_use]
    pub fn on_ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }

    /// These faults.
    pub fn of(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            faults: faults.into_iter().collect(),
            ..Self::healthy()
        }
    }
}

impl From<Fault> for Script {
    fn from(fault: Fault) -> Self {
        Self::of([fault])
    }
}

/// A fault and the number of occasions it has taken.
#[derive(Debug)]
pub(super) struct Slot {
    pub fault: Fault,
    taken: AtomicU32,
}

impl Slot {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            taken: AtomicU32::new(0),
        })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.fault.holds {
            Holds::First(_) | Holds::Always => true,
            Holds::Matching { substr, .. } => path.contains(substr.as_str()),
        }
    }

    fn limit(&self) -> u32 {
        match self.fault.holds {
            Holds::First(n) | Holds::Matching { n, .. } => n,
            Holds::Always => u32::MAX,
        }
    }

    fn spent(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit()
    }

    /// Takes one occasion at `path`; false when the fault does not hold (any more).
    pub(super) fn take(&self, path: &str) -> bool {
        let limit = self.limit();
        self.matches(path)
            && self
                .taken
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| match limit {
                    u32::MAX => Some(taken.saturating_add(1).min(u32::MAX - 1)),
                    _ => (taken < limit).then_some(taken + 1),
                })
                .is_ok()
    }
}

/// The faults of a running server.
#[derive(Debug, Default)]
pub(super) struct Armed(Mutex<Vec<Arc<Slot>>>);

impl Armed {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        let armed = Self::default();
        armed.set(faults);
        armed
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, faults: Vec<Fault>) {
        *self.slots() = faults.into_iter().map(Slot::new).collect();
    }

    pub(super) fn add(&self, fault: Fault) {
        self.slots().push(Slot::new(fault));
    }

    /// Takes the occasion for the first fault that `can` strike here and holds.
    pub(super) fn strike(&self, path: &str, can: impl Fn(&Kind) -> bool) -> Option<Fault> {
        let slots = self.slots();
        let slot = slots
            .iter()
            .find(|slot| can(&slot.fault.kind) && slot.take(path))?;
        Some(slot.fault.clone())
    }

    /// The faults of the middle of a file that may hold for `path`, by their byte. Nothing is
    /// counted yet: the occasion is the moment when that byte is reached.
    pub(super) fn mid_file(&self, path: &str, way: Way) -> Vec<(u64, Arc<Slot>)> {
        let mut found: Vec<_> = self
            .slots()
            .iter()
            .filter(|slot| slot.matches(path) && !slot.spent())
            .filter_map(|slot| Some((slot.fault.kind.mid_file(way)?, Arc::clone(slot))))
            .collect();
        found.sort_by_key(|(after, _)| *after);
        found
    }

    /// Whether the next transfer, whatever its path, may be one whose reader stops.
    pub(super) fn any_stop_reading(&self) -> bool {
        self.slots().iter().any(|slot| {
            matches!(slot.fault.kind, Kind::StopReading { .. })
                && !matches!(slot.fault.holds, Holds::Matching { .. })
                && !slot.spent()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::step::Step;

    const KIND: Kind = Kind::NoReply(Step::Stor);

    fn strikes(armed: &Armed, paths: &[&str]) -> Vec<bool> {
        paths
            .iter()
            .map(|path| armed.strike(path, |kind| *kind == KIND).is_some())
            .collect()
    }

    #[test]
    fn the_first_occasions_are_taken_and_no_later_one() {
        let armed = Armed::new(vec![Fault::new(KIND).first(2)]);
        assert_eq!(strikes(&armed, &["/a", "/b", "/c"]), [true, true, false]);
    }

    #[test]
    fn always_takes_every_occasion() {
        let armed = Armed::new(vec![Fault::new(KIND).always()]);
        assert!(strikes(&armed, &["/x"; 100]).iter().all(|struck| *struck));
    }

    #[test]
    fn a_matching_fault_neither_strikes_nor_counts_other_paths() {
        let armed = Armed::new(vec![Fault::new(KIND).matching("big", 1)]);
        let paths = ["/small", "/in/big.bin", "/big"];
        assert_eq!(strikes(&armed, &paths), [false, true, false]);
    }

    #[test]
    fn a_fault_that_cannot_strike_here_keeps_its_occasions() {
        let armed = Armed::new(vec![Fault::new(Kind::LoginRefused), Fault::new(KIND)]);
        assert_eq!(strikes(&armed, &["/a", "/b"]), [true, false]);
        assert!(
            armed
                .strike("", |kind| *kind == Kind::LoginRefused)
                .is_some()
        );
    }

    #[test]
    fn one_occasion_is_taken_by_the_first_fault_that_holds() {
        let refused = Kind::Reply(Step::Stor, 450);
        let armed = Armed::new(vec![Fault::new(KIND), Fault::new(refused)]);
        let struck = |armed: &Armed| {
            armed
                .strike("/a", |kind| kind.step() == Some(Step::Stor))
                .map(|fault| fault.kind)
        };
        assert_eq!(struck(&armed), Some(KIND));
        assert_eq!(struck(&armed), Some(refused));
        assert_eq!(struck(&armed), None);
    }

    #[test]
    fn concurrent_sessions_take_exactly_as_many_occasions_as_there_are() {
        let armed = Armed::new(vec![Fault::new(KIND).first(500)]);
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for struck in strikes(&armed, &["/a"; 100]) {
                        taken.fetch_add(u32::from(struck), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 500);
    }

    #[test]
    fn a_fault_of_the_middle_is_not_counted_before_its_byte_is_reached() {
        let armed = Armed::new(vec![Fault::new(Kind::StopReading { after: 10 })]);
        assert_eq!(armed.mid_file("/short", Way::Up).len(), 1);
        let due = armed.mid_file("/long", Way::Up);
        assert!(due[0].1.take("/long"));
        assert!(armed.mid_file("/next", Way::Up).is_empty());
    }
}
