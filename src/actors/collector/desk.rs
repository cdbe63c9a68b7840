//! The thread of one route: takes in commands and file events, lets the work turn, hands the
//! daemon what there is to tell. Waits only for its wake token, and never longer than its work
//! has something due; neither a full mailbox nor a panic in the work ends it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use slog::{Logger, error};

use super::{
    Changed, Daemon, FinishedSource, Found, Lane, Revived, RouteSpool, SpoolState, TRY_AGAIN, Took,
};
use crate::spool::Clock;
use crate::spool::watch::{FsEvent, Inlet};
use crate::spool::work::{Command, Report, State, Work};

/// File events on their way to a route's thread: a quarter of the kernel's own queue (16,384).
/// What does not fit is found by a scan.
const EVENTS_MAX: usize = 4_096;
/// Commands on their way to a route's thread; what does not fit waits in the actor's backlog.
const COMMANDS_MAX: usize = 1_024;
/// The first such pause for the daemon's mailbox; doubled while it stays full.
const TRY_AGAIN_FIRST: Duration = Duration::from_millis(1);
/// Pause after a panic in a route's work, so that one that repeats is no hot loop.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// What a route's thread has in hand.
struct Desk {
    name: Arc<str>,
    work: Work,
    daemon: Daemon,
    commands: Receiver<Command>,
    events: Receiver<FsEvent>,
    wake: Receiver<()>,
    lost: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    clock: Clock,
}

pub(super) fn start(
    daemon: Daemon,
    name: Arc<str>,
    spool: RouteSpool,
    log: &Logger,
    clock: Clock,
) -> Result<Lane, std::io::Error> {
    let (commands_in, commands) = sync_channel(COMMANDS_MAX);
    let (events_in, events) = sync_channel(EVENTS_MAX);
    let (wake_in, wake) = sync_channel(1);
    let (lost, stop) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let inlet = Inlet {
        events: events_in,
        wake: wake_in.clone(),
        lost: lost.clone(),
    };
    let RouteSpool {
        route,
        lock,
        kept,
        rows,
    } = spool;
    let mut work = Work::new(route, lock, inlet, log, clock, stop.clone())
        .map_err(|error| std::io::Error::other(format!("route {name}: {error}")))?;
    work.remember_kept(kept, rows);
    let stopped = stop.clone();
    let log = log.clone();
    let title = format!("spool-{name}");
    let mut desk = Desk {
        name,
        work,
        daemon,
        commands,
        events,
        wake,
        lost,
        stop,
        clock,
    };
    let thread = std::thread::Builder::new()
        .name(title)
        .spawn(move || desk.run(&log))?;
    Ok(Lane::new(commands_in, wake_in, stopped, thread))
}

impl Desk {
    /// Works until it is stopped; a panic costs a pause, not the route.
    fn run(&mut self, log: &Logger) {
        while !self.stop.load(Ordering::Acquire) {
            // What a panic leaves half done is known files at worst, which the scan brings again.
            if catch_unwind(AssertUnwindSafe(|| self.turns())).is_err() {
                error!(log, "spool work panicked"; "route" => &*self.name,
                    "next" => "the spool is scanned anew in 5 s");
                self.work.events_lost();
                self.rest(AFTER_PANIC);
            }
        }
        // What the daemon had asked for before the end is done still.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            while let Ok(command) = self.commands.try_recv() {
                self.work.command(command);
            }
            self.deliver();
        }));
    }

    /// Waits so long, or until it is stopped.
    fn rest(&self, pause: Duration) {
        let end = (self.clock.now)().mono + pause;
        while !self.stop.load(Ordering::Acquire) {
            let left = end.saturating_sub((self.clock.now)().mono);
            if left.is_zero() || self.wake.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn turns(&mut self) {
        let mut again = TRY_AGAIN_FIRST;
        while !self.stop.load(Ordering::Acquire) {
            let more = self.take_in();
            let due = self.work.turn();
            let before = self.work.out.len();
            let stuck = self.deliver();
            let moved = self.work.out.len() < before;
            again = if moved || !stuck {
                TRY_AGAIN_FIRST
            } else {
                (again * 2).min(TRY_AGAIN)
            };
            let pause = due.saturating_sub((self.clock.now)().mono);
            let pause = if stuck { pause.min(again) } else { pause };
            if more || pause.is_zero() {
                continue;
            }
            if self.wake.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Takes in what has arrived; true if more may be there.
    fn take_in(&mut self) -> bool {
        let commands: Vec<_> = self.commands.try_iter().take(COMMANDS_MAX).collect();
        let full = commands.len() == COMMANDS_MAX;
        commands
            .into_iter()
            .for_each(|command| self.work.command(command));
        if self.lost.swap(false, Ordering::AcqRel) {
            self.work.events_lost();
        }
        let events: Vec<_> = self.events.try_iter().take(EVENTS_MAX).collect();
        let full = full || events.len() == EVENTS_MAX;
        events.into_iter().for_each(|event| self.work.event(event));
        full
    }

    /// Hands the daemon what there is to tell; true if its mailbox has no place.
    fn deliver(&mut self) -> bool {
        while let Some(report) = self.work.out.pop_front() {
            if let Err(report) = self.tell(report) {
                self.work.out.push_front(report);
                return true;
            }
        }
        false
    }

    fn tell(&self, report: Report) -> Result<(), Report> {
        let route = self.name.clone();
        match report {
            Report::Found(files) => {
                let sent = self.daemon.found.try_send(Found { route, files });
                sent.map_err(|error| Report::Found(error.into_inner().files))
            }
            Report::Renewed => {
                let told = Changed {
                    route,
                    took: Took::Renew,
                };
                let sent = self.daemon.changed.try_send(told);
                sent.map_err(|_| Report::Renewed)
            }
            Report::Revived(files) => {
                let sent = self.daemon.revived.try_send(Revived { route, files });
                sent.map_err(|error| Report::Revived(error.into_inner().files))
            }
            Report::State(state) => {
                let State {
                    problem,
                    files,
                    settling,
                    bytes,
                    oldest_mtime,
                    dead_letters,
                } = state;
                let told = SpoolState {
                    route,
                    problem,
                    files,
                    settling,
                    bytes,
                    oldest_mtime,
                    dead_letters,
                };
                self.daemon.state.try_send(told).map_err(|error| {
                    let SpoolState {
                        problem,
                        files,
                        settling,
                        bytes,
                        oldest_mtime,
                        dead_letters,
                        ..
                    } = error.into_inner();
                    Report::State(State {
                        problem,
                        files,
                        settling,
                        bytes,
                        oldest_mtime,
                        dead_letters,
                    })
                })
            }
            Report::Finished {
                path,
                token,
                outcome,
            } => {
                let told = FinishedSource {
                    route,
                    path,
                    token,
                    outcome,
                };
                self.daemon.finished.try_send(told).map_err(|error| {
                    let FinishedSource {
                        path,
                        token,
                        outcome,
                        ..
                    } = error.into_inner();
                    Report::Finished {
                        path,
                        token,
                        outcome,
                    }
                })
            }
        }
    }
}
