//! A route's hold on its spool folder: open, owned by lock, watched. Notices when the folder is
//! missing, unreadable, taken by another process, or removed and made again, and takes hold of
//! it again: at once where inotify tells, else at growing intervals. Says each change of its
//! state once; leaves what is in the folder to others.

use std::error::Error as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, info, warn};

use super::lock::{FolderLock, LockError};
use super::watch::{Inlet, Watch, WatchError};
use crate::clock::Mono;
use crate::config::Route;

/// Looks for a missing folder: first, and at last, so often. The last one bounds how long a
/// volume that comes back without any sign goes unnoticed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a look at the folder came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It is the folder it was.
    Same,
    /// There is a new one (or the first).
    Taken,
    /// There is none that could be used.
    Missing,
}

/// See the module.
pub(super) struct Folder {
    route: Arc<Route>,
    inlet: Inlet,
    log: Logger,
    /// A lock that was taken before the collector started.
    given: Option<FolderLock>,
    /// The folder in hand.
    pub(super) lock: Option<FolderLock>,
    /// Its watch, or that of the way to it.
    pub(super) watch: Option<Watch>,
    /// inotify's limit is reached: only scans tell what is new.
    pub(super) blind: bool,
    blind_told: bool,
    problem: Option<String>,
    /// When to look for it again, while there is none.
    pub(super) retry_at: Mono,
    pause: Duration,
}

impl Folder {
    pub(super) fn new(
        route: Arc<Route>,
        given: Option<FolderLock>,
        inlet: Inlet,
        log: Logger,
    ) -> Self {
        Self {
            route,
            inlet,
            log,
            given,
            lock: None,
            watch: None,
            blind: false,
            blind_told: false,
            problem: None,
            retry_at: Mono::ZERO,
            pause: RETRY_FIRST,
        }
    }

    /// The route has other settings, and the same spool.
    pub(super) fn renew(&mut self, route: Arc<Route>) {
        self.route = route;
    }

    /// The folder, if one is in hand.
    pub(super) fn root(&self) -> Option<&OwnedFd> {
        self.lock.as_ref().map(FolderLock::folder)
    }

    /// What is wrong with it, for people.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Looks whether the folder in hand is still the spool, and takes hold of the right one.
    pub(super) fn look(&mut self, now: Mono) -> Look {
        if self
            .lock
            .as_ref()
            .is_some_and(|lock| lock.is_current().unwrap_or(false))
        {
            return Look::Same;
        }
        let lost = self.lock.take().is_some();
        if lost {
            self.watch = None;
        }
        match self.take() {
            Ok(lock) => {
                self.pause = RETRY_FIRST;
                // A watch on the way to it knows no folder below it.
                self.watch_afresh();
                self.lock = Some(lock);
                self.set_problem(None);
                Look::Taken
            }
            Err(error) => {
                self.retry_at = now + self.pause;
                self.pause = (self.pause * 2).min(RETRY_MAX);
                // The nearest folder on the way that exists may be another one by now.
                self.watch_afresh();
                let text = match error.source() {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                self.set_problem(Some(text));
                Look::Missing
            }
        }
    }

    fn take(&mut self) -> Result<FolderLock, LockError> {
        match self.given.take() {
            Some(lock) if lock.is_current().unwrap_or(false) => Ok(lock),
            _ => FolderLock::acquire(&self.route.spool, "spool folder"),
        }
    }

    /// The spool cannot be read although it is there.
    pub(super) fn trouble(&mut self, error: &std::io::Error) {
        let text = format!(
            "spool folder {:?} cannot be read: {error}",
            self.route.spool
        );
        self.set_problem(Some(text));
    }

    /// A scan went through it, watching all it read unless it is blind: it is well again.
    pub(super) fn well(&mut self) {
        self.set_problem(None);
        if !self.blind && std::mem::take(&mut self.blind_told) {
            info!(self.log, "folders can be watched again");
        }
    }

    fn set_problem(&mut self, problem: Option<String>) {
        if self.problem == problem {
            return;
        }
        match &problem {
            Some(text) => warn!(self.log, "spool folder cannot be used";
                "error" => %text,
                "next" => format!("looked at again within {} s", RETRY_MAX.as_secs())),
            None => info!(self.log, "spool folder is in use"; "folder" => ?self.route.spool),
        }
        self.problem = problem;
    }

    /// Starts a new watch: of the folder's holders now, of the folders below as a scan enters
    /// them.
    pub(super) fn watch_afresh(&mut self) {
        self.watch = None;
        match Watch::new(&self.route.spool, self.inlet.clone()) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => self.cannot_watch(&error),
        }
    }

    /// Watches one folder before it is read.
    pub(super) fn watch_folder(&mut self, rel: &str) {
        if self.blind {
            return;
        }
        if let Some(Err(error)) = self.watch.as_mut().map(|watch| watch.add(rel)) {
            self.cannot_watch(&error);
        }
    }

    fn cannot_watch(&mut self, error: &WatchError) {
        let WatchError::Limit(limit) = error else {
            return;
        };
        if !std::mem::replace(&mut self.blind_told, true) {
            warn!(self.log, "the machine lets no more folders be watched";
                "limit" => limit,
                "next" => "the spool is scanned every 5 s instead; raise the limit (sysctl)");
        }
        self.blind = true;
    }

    /// Tries to see again after having been blind; the scan that follows finds out whether it can.
    pub(super) fn open_eyes(&mut self) {
        if self.blind {
            self.blind = false;
            self.watch_afresh();
        }
    }
}
