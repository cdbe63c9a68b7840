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
use crate::cli::guard::Guard;
use crate::clock::{self, Mono};
use crate::config::Config;
use crate::ftp::{Limit, Quirks, Setup, Trouble};
use crate::pulse::{Folder, LookUps, WorkerHandle};
use crate::spool::journal::Journal;
use crate::sys::fence::Pair;

/// Between two looks at the bounds.
const LOOK: Duration = Duration::from_millis(50);
/// What is left to a thread after its end to come back.
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
        let config = config.clone();
        let started = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                for (setup, destination, tell) in setups {
                    let watched =
                        setup.and_then(|setup| watch(setup, &destination, &config, canary, &tell));
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
    Ok(Setup {
        handle: Arc::new(WorkerHandle::new(1)?),
        route: Arc::clone(&destination.route),
        timers,
        detection: config.heartbeat.policy().detection(),
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
    config: &Config,
    canary: bool,
    tell: &Sender<Line>,
) -> io::Result<()> {
    let mut guard = Guard::new(Arc::clone(&setup.handle), config);
    let patience = config.heartbeat.policy().detection();
    let (say, said) = channel();
    std::thread::Builder::new()
        .name("check".into())
        .spawn(move || {
            let _attached = setup.handle.fence.attach();
            examine::examine(&setup, canary, &say);
        })?;
    let mut remedy = Remedy::None;
    loop {
        match said.recv_timeout(LOOK) {
            // Whoever printed the lines may be gone; the examination still cleans up.
            Ok(line) => drop(tell.send(line)),
            Err(RecvTimeoutError::Disconnected) => {
                if let Remedy::Ended(_, pair) = remedy {
                    pair.reset();
                }
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock::mono();
        let verdict = guard.look(now);
        remedy = match (remedy, verdict) {
            // What is left of it here is its sockets.
            (Remedy::Ended(at, pair), _) if now > at + LAST_CHANCE => {
                pair.reset();
                let trouble = Trouble::Timeout(guard.handle().phase());
                drop(tell.send(Line {
                    what: "check",
                    detail: format!("{}, and could not be ended", advice::seen(&trouble)),
                    finding: Finding::Failed {
                        advice: advice::advice(&trouble, &destination.route),
                    },
                }));
                return Ok(());
            }
            // Good beats take their time, too.
            (Remedy::Interrupted(number, at), Some(_)) if now < at + patience => {
                Remedy::Interrupted(number, at)
            }
            (Remedy::Interrupted(number, _), Some(verdict)) if verdict.number == number => {
                Remedy::Ended(now, guard.handle().fence.end())
            }
            (Remedy::None | Remedy::Interrupted(..), Some(verdict)) => {
                // Its session goes; the clean-up gets another one.
                guard.handle().fence.interrupt(verdict.number);
                Remedy::Interrupted(verdict.number, now)
            }
            (remedy, _) => remedy,
        };
    }
}

/// What was done about an examination without a sign of life.
enum Remedy {
    None,
    /// The phase of this number, then.
    Interrupted(u64, Mono),
    Ended(Mono, Pair),
}
