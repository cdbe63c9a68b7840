//! Runs the examination of each destination as the service runs an upload: on a worker's thread
//! behind a fence, every phase within its bound. The watcher enforces the bounds and gives a
//! thread up that does not come back, so that no server and no bug can hold the command.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use slog::{Discard, Logger, o};

use super::advice;
use super::destination::{Destination, Finding, Line};
use super::examine;
use crate::clock::{self, Mono};
use crate::config::Config;
use crate::core::timers;
use crate::ftp::{Limit, Quirks, Setup, Trouble};
use crate::pulse::{Folder, LookUps, WorkerHandle};
use crate::spool::journal::Journal;
use crate::sys::fence::Pair;

/// Between two looks at the bounds.
const LOOK: Duration = Duration::from_millis(50);
/// What is left to a thread after its interrupt, and again after its end, to come back.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Starts trying all destinations: those of one login one after the other (its server may not
/// allow more sessions at a time), different ones at the same time. The lines of each come
/// through its receiver, which ends.
pub fn start_all(
    destinations: Vec<Destination>,
    config: &Config,
    canary: bool,
) -> Vec<(Destination, Receiver<Line>)> {
    // The queues are unbounded, but a destination has a dozen lines.
    let mut by_login: BTreeMap<String, Vec<(Destination, Sender<Line>)>> = BTreeMap::new();
    let mut running = Vec::new();
    for destination in destinations {
        let (tell, told) = channel();
        by_login
            .entry(destination.route.server.key())
            .or_default()
            .push((destination.clone(), tell));
        running.push((destination, told));
    }
    for queue in by_login.into_values() {
        let setups: Vec<_> = queue
            .into_iter()
            .map(|(destination, tell)| (setup(&destination, config), destination, tell))
            .collect();
        let started = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                for (setup, destination, tell) in setups {
                    let watched = setup.and_then(|setup| watch(setup, &destination, canary, &tell));
                    if let Err(error) = watched {
                        let _ = tell.send(impossible(&error));
                    }
                }
            });
        // Its receivers end without a line; that must not pass for success.
        if let Err(error) = started {
            for (_, lines) in &mut running {
                let (tell, told) = channel();
                let _ = tell.send(impossible(&error));
                *lines = told;
            }
            break;
        }
    }
    running
}

fn impossible(error: &io::Error) -> Line {
    Line {
        what: "check",
        detail: format!("cannot be carried out: {error}"),
        finding: Finding::Failed {
            advice: "raise this process's limits of threads and open files".into(),
        },
    }
}

fn setup(destination: &Destination, config: &Config) -> io::Result<Setup> {
    let mut timers = config.timers.clone();
    // A person waits: the first failure is the answer.
    timers.control_connect_attempts = 1;
    timers.data_connect_attempts = 1;
    let heartbeat = &config.heartbeat;
    Ok(Setup {
        handle: Arc::new(WorkerHandle::new(1)?),
        route: Arc::clone(&destination.route),
        timers,
        detection: heartbeat.interval * (heartbeat.misses + 2),
        look_ups: LookUps::default(),
        folder: Folder::default(),
        limit: Limit::default(),
        quirks: Quirks::default(),
        hold: config.quarantine.hold,
        journal: Journal::none(),
        log: Logger::root(Discard, o!()),
    })
}

/// Tries one destination and tells what it finds, until that is done or given up.
fn watch(
    setup: Setup,
    destination: &Destination,
    canary: bool,
    tell: &Sender<Line>,
) -> io::Result<()> {
    let handle = Arc::clone(&setup.handle);
    let (say, said) = channel();
    let stall = setup.timers.stall;
    std::thread::Builder::new()
        .name("check".into())
        .spawn(move || {
            let _attached = setup.handle.fence.attach();
            examine::examine(&setup, canary, &say);
        })?;
    let mut guard = Guard::new(handle, stall);
    loop {
        match said.recv_timeout(LOOK) {
            // Whoever printed the lines may be gone; the examination still cleans up.
            Ok(line) => drop(tell.send(line)),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if guard.look(clock::mono()) {
            let trouble = Trouble::Timeout(guard.handle.phase());
            drop(tell.send(Line {
                what: "check",
                detail: format!("{}, and could not be ended", advice::seen(&trouble)),
                finding: Finding::Failed {
                    advice: advice::advice(&trouble, &destination.route),
                },
            }));
            return Ok(());
        }
    }
}

/// The bounds of one worker's phases.
struct Guard {
    handle: Arc<WorkerHandle>,
    /// For the phases that must move and have no deadline of their own.
    stall: Duration,
    /// The phase and the bytes at the last look, and since when they are the same.
    last: (u64, u64),
    since: Mono,
    interrupted: Option<Mono>,
    ended: Option<(Mono, Pair)>,
}

impl Guard {
    fn new(handle: Arc<WorkerHandle>, stall: Duration) -> Self {
        Self {
            handle,
            stall,
            last: (0, 0),
            since: clock::mono(),
            interrupted: None,
            ended: None,
        }
    }

    /// Enforces what is due now. True if the worker is to be given up.
    fn look(&mut self, now: Mono) -> bool {
        if let Some((at, _)) = &self.ended {
            return now > *at + LAST_CHANCE;
        }
        let (phase, deadline) = self.handle.deadline();
        if self.last != (phase, self.handle.bytes()) {
            if self.last.0 != phase {
                self.interrupted = None;
            }
            self.last = (phase, self.handle.bytes());
            self.since = now;
        }
        let deadline = deadline.unwrap_or(self.since + self.stall);
        let last = self.handle.fence.last_interrupt();
        if timers::overdue(phase, Some(deadline), last, now) {
            self.handle.fence.interrupt(phase);
            self.interrupted = Some(now);
        } else if self.interrupted.is_some_and(|at| now > at + LAST_CHANCE) {
            self.ended = Some((now, self.handle.fence.end()));
        }
        false
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((_, pair)) = self.ended.take() {
            pair.reset();
        }
    }
}
