//! The journal: what the service knows of files that are not finished, so that it survives the end
//! of the process. This file says what is written and what is read back; `store` holds it in
//! SQLite, `queue` brings it there from every thread. The rule that it serves: before every STOR,
//! every RNFR and every removal of a source, what is about to happen stands in the journal.

mod queue;
mod store;

use std::sync::Arc;

pub use queue::{Done, Drawer, Entry, Journal, Ticket, journal};
pub use store::{AGENT, INCIDENTS, KeptRows, OpenError, Opened, Store, attempts_in, why_no_resend};

use super::Stamp;
use crate::core::journey::{Remedy, Stage};

/// A file of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The route's name.
    pub route: Arc<str>,
    /// Path below its spool.
    pub path: Arc<str>,
}

/// One change of what is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An attempt enters a stage; `Opened` means that nothing of it is left on the server.
    Attempt {
        /// The file.
        of: Key,
        /// The attempt's temp name.
        temp: String,
        /// The stage.
        stage: Stage,
        /// The version that is sent, where it is known.
        sent: Option<Stamp>,
        /// The final name that it aims at, where that was chosen; below the remote folder.
        target: Option<String>,
        /// Where that folder is.
        place: Option<Arc<str>>,
    },
    /// A file failed and waits. In a new version it begins anew.
    Waiting {
        /// The file.
        of: Key,
        /// Failures in a row.
        failures: u32,
        /// Unix time of the next attempt, seconds.
        next: f64,
        /// The story of the last failure.
        error: String,
        /// Since when, and in which version.
        failing: Failing,
    },
    /// It stands under its final name in this version: only its source has to be finished.
    Delivered {
        /// The file.
        of: Key,
        /// The version.
        sent: Stamp,
        /// Unix time, seconds.
        at: f64,
        /// The final name, where it is another one than the file's own.
        name: Option<String>,
    },
    /// Its source is finished. A kept one is remembered as long as it stands in the spool.
    Finished {
        /// The file.
        of: Key,
        /// The version that stays.
        kept: Option<Stamp>,
    },
    /// It is not known any more (changed, vanished): what comes under its name is new.
    Forgotten {
        /// The file.
        of: Key,
    },
    /// The route's remote folder is about to be made anew: that a temp name is absent proves no
    /// publication any more.
    Remade {
        /// The route's name.
        route: Arc<str>,
    },
    /// Kept files are missing in their spool, or back in it.
    Gone {
        /// The route's name.
        route: Arc<str>,
        /// Paths below its spool.
        paths: Vec<Arc<str>>,
        /// Unix time since when, seconds; none: they are back.
        gone: Option<f64>,
    },
    /// A temp name is to be taken away once more, or is gone.
    Sweep {
        /// The route's name.
        route: Arc<str>,
        /// The temp name, below the remote folder.
        temp: String,
        /// Unix time since when, seconds; none: it is gone.
        at: Option<f64>,
    },
    /// A deadlock, or its newer state.
    Incident {
        /// Its number.
        id: u64,
        /// Unix time of its verdict, seconds.
        at: f64,
        /// The whole of it, JSON.
        body: String,
    },
    /// Nothing: whether the journal can be written.
    Probe,
}

/// Since when a file fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Failing {
    /// The version that fails.
    pub version: Stamp,
    /// Unix time of its first failure, seconds.
    pub first: f64,
    /// For how long, seconds; time while the destination was down is left out.
    pub seconds: f64,
}

/// An attempt as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAttempt {
    /// Its temp name.
    pub temp: String,
    /// How far it came, or further.
    pub stage: Stage,
    /// The version that was sent.
    pub sent: Option<Stamp>,
    /// The final name that it aimed at, where that was chosen.
    pub target: Option<String>,
    /// Where its remote folder is; none from a version that did not note it.
    pub place: Option<Arc<str>>,
}

/// An attempt that may have been published is told by its name, which is absent then. But where a
/// newer one is not published for sure, its end was not noted (the journal could not be written):
/// the newer one may have its file, and its absence proves nothing.
pub fn lower_outlived(attempts: &mut [KnownAttempt]) {
    let newest = attempts.iter().rposition(|a| a.stage == Stage::Sending);
    let outlived = attempts.iter_mut().take(newest.unwrap_or(0));
    for attempt in outlived.filter(|a| a.stage.remedy() == Remedy::Ask) {
        attempt.stage = Stage::Sending;
    }
}

/// A temp name that was still to be taken away once more when the journal was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldName {
    /// The route's name.
    pub route: Arc<str>,
    /// The temp name, below the remote folder.
    pub temp: String,
}

/// A file that was not finished when the journal was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// The file.
    pub of: Key,
    /// Failures in a row.
    pub failures: u32,
    /// Since when it fails, where it does.
    pub failing: Option<Failing>,
    /// Unix time of the next attempt, seconds.
    pub next: f64,
    /// Delivered in this version; only its source is not finished.
    pub delivered: Option<Stamp>,
    /// Attempts without a clear result, oldest first.
    pub attempts: Vec<KnownAttempt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_a_newer_one_outlived_proves_nothing() {
        use Stage::{Opened, Publishing, Sending};
        for (known, lowered) in [
            (vec![Publishing, Sending], vec![Sending, Sending]),
            (vec![Sending, Publishing], vec![Sending, Publishing]),
            (
                vec![Publishing, Sending, Publishing],
                vec![Sending, Sending, Publishing],
            ),
            (vec![Publishing, Publishing], vec![Publishing, Publishing]),
            (vec![Opened], vec![Opened]),
            (vec![], vec![]),
        ] {
            let attempt = |stage| KnownAttempt {
                temp: "t".into(),
                stage,
                sent: None,
                target: None,
                place: None,
            };
            let mut attempts: Vec<_> = known.into_iter().map(attempt).collect();
            lower_outlived(&mut attempts);
            assert!(attempts.iter().map(|a| a.stage).eq(lowered));
        }
    }
}
