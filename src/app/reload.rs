//! A reload: on SIGHUP, or when the HTTP side asks, the configuration is read anew and what differs
//! is handed to whom it concerns. One at a time. A configuration with faults, or with a spool that
//! another process owns, changes nothing and is told in the words of `ftpulse check`.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Addr, Recipient};
use slog::{Level, Logger, error, info, warn};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};

use crate::actors::daemon::{Applied, DaemonActor, Reload};
use crate::actors::journal::Recall;
use crate::actors::messages::Limit;
use crate::actors::quarantine::SocketQuarantineActor;
use crate::config::{Config, Faults, Loaded};
use crate::http::{Token, Unavailable};
use crate::log::escape;
use crate::report::{FaultReport, NotReloaded, Reloaded};
use crate::spool::lock::{FolderLock, LockError};
use crate::watchdog::service::Watched;

/// Who may wait for a reload at once; more are told to come back.
pub const WAITING: usize = 16;
/// How long the files of the configuration and the new spools may take.
const READING: Duration = Duration::from_secs(30);
/// How long the daemon may take. It turns, or it is replaced with its process.
const ANSWER: Duration = Duration::from_secs(10);

/// What became of a reload: done, refused with nothing changed, or not come to.
pub type Outcome = Result<Result<Reloaded, NotReloaded>, Unavailable>;
/// Where a reload is asked for.
pub type Asks = mpsc::Sender<oneshot::Sender<Outcome>>;

/// How a service reads its configuration again.
pub struct Rereading {
    /// Reads all layers, as at the start. Called on a thread of its own.
    pub load: Arc<dyn Fn() -> Result<Loaded, Faults> + Send + Sync>,
    /// The signal that asks for it.
    pub signal: Signal,
    /// Sets the level of the log.
    pub level: Box<dyn Fn(Level)>,
}

/// Whoever is told of what differs.
pub struct Reloader {
    pub how: Rereading,
    pub asks: mpsc::Receiver<oneshot::Sender<Outcome>>,
    pub daemon: Addr<DaemonActor>,
    pub quarantine: Addr<SocketQuarantineActor>,
    pub recall: Recipient<Recall>,
    pub token: Token,
    /// What holds now.
    pub config: watch::Sender<Arc<Config>>,
    /// Whoever watches the service.
    pub watched: Watched,
    pub log: Logger,
}

impl Reloader {
    /// Serves until nobody can ask any more.
    pub async fn serve(mut self) {
        let mut reader = None;
        loop {
            let ask = tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return,
                },
                // Signals that come together are one.
                _ = self.how.signal.recv() => None,
            };
            let by = if ask.is_some() { "HTTP" } else { "SIGHUP" };
            self.watched.reloading();
            let outcome = self.reload(&mut reader).await;
            let refused = !matches!(outcome, Ok(Ok(_)));
            self.watched.reloaded(&in_short(&outcome), refused);
            self.tell(by, &outcome);
            if let Some(answer) = ask {
                // Whoever asked may have gone.
                let _ = answer.send(outcome);
            }
        }
    }

    async fn reload(&self, reader: &mut Option<JoinHandle<()>>) -> Outcome {
        let read = match self.read(reader).await? {
            Ok(read) => read,
            Err(faults) => return Ok(Err(faults)),
        };
        let Read { loaded, locks } = read;
        for warning in &loaded.warnings {
            warn!(self.log, "configuration"; "error" => warning,
                "next" => "the service goes on with it");
        }
        let reload = Reload {
            config: loaded.config,
            locks,
            recall: self.recall.clone(),
        };
        let silent = |_| Unavailable("the daemon does not answer; it may do it still".into());
        let applied = actix_rt::time::timeout(ANSWER, self.daemon.send(reload)).await;
        let applied = applied.map_err(silent)?;
        let gone = |_| Unavailable("the daemon is gone".into());
        let Applied { report, config } = applied.map_err(gone)?.map_err(Unavailable)?;
        (self.how.level)(config.log.level);
        self.token.set(config.http.token.clone());
        if report
            .applied
            .iter()
            .any(|key| key.starts_with("quarantine."))
        {
            let limit = Limit(super::limits(&config));
            if self.quarantine.send(limit).await.is_err() {
                // Noticed by the daemon, which ends the service.
                return Err(Unavailable("the quarantine is gone".into()));
            }
        }
        self.config.send_replace(config);
        Ok(Ok(report))
    }

    /// Reads on a thread, since whatever lies on a disk may hang with it.
    async fn read(
        &self,
        reader: &mut Option<JoinHandle<()>>,
    ) -> Result<Result<Read, NotReloaded>, Unavailable> {
        if reader.as_ref().is_some_and(|before| !before.is_finished()) {
            let why = "the configuration is still being read: its disk hangs";
            return Err(Unavailable(why.into()));
        }
        let (load, now) = (Arc::clone(&self.how.load), self.config.borrow().clone());
        let (told, read) = oneshot::channel();
        let thread = std::thread::Builder::new().name("reload".into());
        let begun = thread.spawn(move || {
            // Nobody may be waiting any more: locks go with it.
            let _ = told.send(take_in(&*load, &now));
        });
        let none = |e| Unavailable(format!("no thread can be started: {e}"));
        *reader = Some(begun.map_err(none)?);
        let seconds = READING.as_secs();
        let late = |_| format!("the configuration could not be read within {seconds} s");
        let read = actix_rt::time::timeout(READING, read).await;
        let read = read.map_err(late).map_err(Unavailable)?;
        // It has told all that it had to, and is about to end.
        *reader = None;
        read.map_err(|_| Unavailable("reading the configuration failed".into()))
    }

    fn tell(&self, by: &str, outcome: &Outcome) {
        match outcome {
            Ok(Ok(done)) => {
                info!(self.log, "configuration reloaded"; "by" => by,
                    "added" => done.added.join(" "), "changed" => done.changed.join(" "),
                    "removed" => done.removed.join(" "), "applied" => done.applied.join(" "),
                    "next" => "what runs is finished under the settings that it began with");
                if !done.needs_restart.is_empty() {
                    warn!(self.log, "settings need a restart";
                        "keys" => done.needs_restart.join(" "),
                        "next" => "the old values hold until then");
                }
            }
            Ok(Err(refused)) => error!(self.log, "configuration not reloaded"; "by" => by,
                "error" => escape(&refused.error).into_owned(),
                "next" => "nothing was changed; the old one holds"),
            Err(Unavailable(why)) => error!(self.log, "configuration not reloaded"; "by" => by,
                "error" => why, "next" => "the old one holds; ask again"),
        }
    }
}

/// What came of it, for a line that everybody may read.
fn in_short(outcome: &Outcome) -> String {
    match outcome {
        Ok(Ok(done)) if done.needs_restart.is_empty() => "configuration reloaded".into(),
        Ok(Ok(_)) => {
            "configuration reloaded, but for what needs a restart; the log says which".into()
        }
        Ok(Err(_)) => {
            "configuration not reloaded: it has faults, which the log names; the old one holds"
                .into()
        }
        Err(Unavailable(why)) => format!("configuration not reloaded: {why}; the old one holds"),
    }
}

/// A sound configuration, and the locks of its new spools.
struct Read {
    loaded: Loaded,
    locks: Vec<FolderLock>,
}

fn take_in(
    load: &(dyn Fn() -> Result<Loaded, Faults> + Send + Sync),
    now: &Config,
) -> Result<Read, NotReloaded> {
    let loaded = load().map_err(|faults| told(&faults))?;
    let mut locks = Vec::new();
    let known = |spool| now.routes.values().any(|route| route.spool == spool);
    for route in loaded.config.routes.values() {
        if known(route.spool.clone()) {
            continue;
        }
        match FolderLock::acquire(&route.spool, "spool") {
            Ok(lock) => locks.push(lock),
            // A route of ours that is about to end: the new one waits for it.
            Err(LockError::Held {
                holder: Some(holder),
                ..
            }) if holder.pid == std::process::id() => {}
            Err(held @ LockError::Held { .. }) => {
                return Err(NotReloaded {
                    error: held.to_string(),
                    faults: Vec::new(),
                });
            }
            // Missing or unreadable: reported and waited for, as at the start.
            Err(LockError::Io { .. }) => {}
        }
    }
    Ok(Read { loaded, locks })
}

/// The faults for people and for programs; no fault holds a secret.
fn told(faults: &Faults) -> NotReloaded {
    let one = |fault: &crate::config::Fault| FaultReport {
        key: fault.key.clone(),
        origin: fault.origin.clone(),
        found: fault.found.clone(),
        allowed: fault.allowed.clone(),
        way_out: fault.way_out.clone(),
    };
    NotReloaded {
        error: faults.to_string(),
        faults: faults.iter().map(one).collect(),
    }
}
