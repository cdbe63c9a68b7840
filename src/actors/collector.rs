//! `CollectorActor`: what stands between the daemon and the spool folders. The actor only passes
//! messages on; each route has a thread of its own that does all the file work (`spool::work`),
//! so that a hung disk holds up its own route and nobody else. Never waits: neither the actor for
//! a thread, nor a thread for the daemon's mailbox (what does not fit is kept and tried again).

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, error};

use crate::config::Route;
use crate::spool::finish::Finished;
use crate::spool::lock::FolderLock;
use crate::spool::watch::{FsEvent, Inlet};
use crate::spool::work::{Command, Report, State, Work};
use crate::spool::{Candidate, Clock, Stamp};

/// File events on their way to a route's thread: a quarter of the kernel's own queue (16,384).
/// What does not fit is found by a scan.
const EVENTS_MAX: usize = 4_096;
/// Commands on their way to a route's thread; what does not fit waits in the actor's backlog.
const COMMANDS_MAX: usize = 1_024;
/// The actor's mailbox: a burst of results from every slot, and some.
const MAILBOX: usize = 1_024;
/// Pause before a full queue (the thread's, the daemon's) is tried again: at most this long.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// The first such pause for the daemon's mailbox; doubled while it stays full.
const TRY_AGAIN_FIRST: Duration = Duration::from_millis(1);
/// Pause after a panic in a route's work, so that one that repeats is no hot loop.
const AFTER_PANIC: Duration = Duration::from_secs(5);
/// How long `Shutdown` waits for the threads before it leaves a hung one behind.
const GRACE: Duration = Duration::from_secs(2);

/// Collector to daemon: files that may be sent, in order; at most 256, and as many as wanted.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Found {
    /// The route's name.
    pub route: Arc<str>,
    /// The files.
    pub files: Vec<Candidate>,
}

/// Collector to daemon: the state of a route's spool, whenever it changed (at most once a
/// second).
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct SpoolState {
    /// The route's name.
    pub route: Arc<str>,
    /// What is wrong with the folder, if anything.
    pub problem: Option<String>,
    /// Files waiting, those at the daemon included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest modification time among them, Unix seconds.
    pub oldest_mtime: Option<f64>,
}

/// Collector to daemon: what became of a source.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct FinishedSource {
    /// The route's name.
    pub route: Arc<str>,
    /// Path below the spool.
    pub path: String,
    /// As it came with [`Finish`].
    pub token: u64,
    /// What became of it; after an error [`Finish`] may be sent again, or [`Forget`].
    pub outcome: Result<Finished, String>,
}

/// Daemon to collector: so many more files of a route may be offered.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Want {
    /// The route's name.
    pub route: Arc<str>,
    /// How many more.
    pub n: usize,
}

/// Daemon to collector: this file was delivered in this version.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Finish {
    /// The route's name.
    pub route: Arc<str>,
    /// Path below the spool.
    pub path: String,
    /// The version that was sent.
    pub sent: Stamp,
    /// Comes back with the outcome.
    pub token: u64,
}

/// Daemon to collector: it has no record of this file any more (vanished, changed); the file may
/// be offered again after settling anew.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Forget {
    /// The route's name.
    pub route: Arc<str>,
    /// Path below the spool.
    pub path: String,
}

/// Ends the threads. Answers whether all of them ended within 2 s; one that hangs in a disk
/// call is left behind and does not hold the process's exit.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "bool")]
pub struct Shutdown;

/// Where the collector's messages go.
#[derive(Clone)]
pub struct Daemon {
    /// Takes [`Found`].
    pub found: Recipient<Found>,
    /// Takes [`SpoolState`].
    pub state: Recipient<SpoolState>,
    /// Takes [`FinishedSource`].
    pub finished: Recipient<FinishedSource>,
}

/// A route to collect for.
#[derive(Debug)]
pub struct RouteSpool {
    /// The route.
    pub route: Arc<Route>,
    /// The spool's lock, where it was taken before. Without it the route's thread takes it, and
    /// tells of a holder as a problem of the spool.
    pub lock: Option<FolderLock>,
}

/// The actor's side of a route's thread.
struct Lane {
    commands: SyncSender<Command>,
    wake: SyncSender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// Commands that found the channel full, oldest first. Bounded by the daemon: one `Finish`
    /// or `Forget` at a time for each of at most 20,000 offered files; `Want`s are summed.
    backlog: VecDeque<Command>,
}

impl Lane {
    /// Passes a command on, or keeps it. True if something is kept.
    fn pass(&mut self, command: Command) -> bool {
        match (self.backlog.back_mut(), command) {
            (Some(Command::Want(sum)), Command::Want(n)) => *sum = sum.saturating_add(n),
            (_, command) => self.backlog.push_back(command),
        }
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while let Some(command) = self.backlog.pop_front() {
            match self.commands.try_send(command) {
                Ok(()) => {}
                Err(TrySendError::Full(command)) => {
                    self.backlog.push_front(command);
                    break;
                }
                // The thread has ended: after Shutdown only.
                Err(TrySendError::Disconnected(_)) => self.backlog.clear(),
            }
        }
        let _ = self.wake.try_send(());
        !self.backlog.is_empty()
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

/// See the module.
pub struct CollectorActor {
    lanes: HashMap<Arc<str>, Lane>,
    log: Logger,
    flushing: bool,
}

impl CollectorActor {
    /// Starts a thread for each route.
    ///
    /// # Errors
    /// A pattern that is none, a thread that cannot be started; the threads started so far end.
    pub fn new(
        daemon: &Daemon,
        routes: Vec<RouteSpool>,
        log: &Logger,
        clock: Clock,
    ) -> Result<Self, std::io::Error> {
        let mut actor = Self {
            lanes: HashMap::new(),
            log: log.clone(),
            flushing: false,
        };
        for RouteSpool { route, lock } in routes {
            let name: Arc<str> = route.name.as_str().into();
            let lane = start(daemon.clone(), name.clone(), route, lock, log, clock)?;
            actor.lanes.insert(name, lane);
        }
        Ok(actor)
    }

    fn pass(&mut self, route: &str, command: Command, ctx: &mut Context<Self>) {
        let Some(lane) = self.lanes.get_mut(route) else {
            error!(self.log, "command for an unknown route"; "route" => route,
                "command" => ?command, "next" => "it is dropped");
            return;
        };
        if lane.pass(command) {
            self.flush_later(ctx);
        }
    }

    fn flush_later(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.flushing, true) {
            return;
        }
        ctx.run_later(TRY_AGAIN, |actor, ctx| {
            actor.flushing = false;
            let kept = actor
                .lanes
                .values_mut()
                .filter_map(|lane| lane.flush().then_some(()));
            if kept.count() > 0 {
                actor.flush_later(ctx);
            }
        });
    }
}

impl Drop for CollectorActor {
    fn drop(&mut self) {
        self.lanes.values().for_each(Lane::stop);
    }
}

impl Actor for CollectorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Want> for CollectorActor {
    type Result = ();
    fn handle(&mut self, message: Want, ctx: &mut Self::Context) {
        self.pass(&message.route, Command::Want(message.n), ctx);
    }
}

impl Handler<Finish> for CollectorActor {
    type Result = ();
    fn handle(&mut self, message: Finish, ctx: &mut Self::Context) {
        let Finish {
            route,
            path,
            sent,
            token,
        } = message;
        self.pass(&route, Command::Finish { path, sent, token }, ctx);
    }
}

impl Handler<Forget> for CollectorActor {
    type Result = ();
    fn handle(&mut self, message: Forget, ctx: &mut Self::Context) {
        self.pass(&message.route, Command::Forget { path: message.path }, ctx);
    }
}

impl Handler<Shutdown> for CollectorActor {
    type Result = ResponseFuture<bool>;
    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        for lane in self.lanes.values_mut() {
            lane.flush();
            lane.stop();
        }
        let threads: Vec<_> = self.lanes.drain().map(|(_, lane)| lane.thread).collect();
        Box::pin(async move {
            let tries = GRACE.as_millis() / TRY_AGAIN.as_millis();
            for _ in 0..tries {
                if threads.iter().all(JoinHandle::is_finished) {
                    break;
                }
                actix_rt::time::sleep(TRY_AGAIN).await;
            }
            threads.iter().all(JoinHandle::is_finished)
        })
    }
}

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

fn start(
    daemon: Daemon,
    name: Arc<str>,
    route: Arc<Route>,
    lock: Option<FolderLock>,
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
    let work = Work::new(route, lock, inlet, log, clock, stop.clone())
        .map_err(|error| std::io::Error::other(format!("route {name}: {error}")))?;
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
    let backlog = VecDeque::new();
    Ok(Lane {
        commands: commands_in,
        wake: wake_in,
        stop: stopped,
        thread,
        backlog,
    })
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
                let _ = self.wake.recv_timeout(AFTER_PANIC);
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
            Report::State(state) => {
                let State {
                    problem,
                    files,
                    bytes,
                    oldest_mtime,
                } = state;
                let told = SpoolState {
                    route,
                    problem,
                    files,
                    bytes,
                    oldest_mtime,
                };
                self.daemon.state.try_send(told).map_err(|error| {
                    let SpoolState {
                        problem,
                        files,
                        bytes,
                        oldest_mtime,
                        ..
                    } = error.into_inner();
                    Report::State(State {
                        problem,
                        files,
                        bytes,
                        oldest_mtime,
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
