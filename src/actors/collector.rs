//! `CollectorActor`: what stands between the daemon and the spool folders. The actor only passes
//! messages on; each route has a thread of its own that does all the file work (`spool::work`),
//! so that a hung disk holds up its own route and nobody else. Never waits: neither the actor for
//! a thread, nor a thread for the daemon's mailbox (what does not fit is kept and tried again).

mod change;
mod desk;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::prelude::*;
use slog::{Logger, error};
use tokio::sync::oneshot;

pub use change::{Change, Changed, Step, Took};

use crate::config::Route;
use crate::pulse::{Point, Sabotage};
use crate::report;
use crate::spool::finish::Finished;
use crate::spool::journal::KeptRows;
use crate::spool::lock::FolderLock;
use crate::spool::work::Command;
use crate::spool::{Candidate, Clock, Stamp};

/// The actor's mailbox: a burst of results from every slot, and some.
const MAILBOX: usize = 1_024;
/// Pause before a full queue (the thread's, the daemon's) is tried again: at most this long.
const TRY_AGAIN: Duration = Duration::from_millis(20);
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
    /// Those of them that are not settled yet, or are open for writing.
    pub settling: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest modification time among them, Unix seconds.
    pub oldest_mtime: Option<f64>,
    /// Files among the dead letters.
    pub dead_letters: u64,
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

/// Collector to daemon: dead letters that were sent again; what was known of them is over.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Revived {
    /// The route's name.
    pub route: Arc<str>,
    /// Paths below the spool.
    pub files: Vec<String>,
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

/// Daemon to collector: this file was delivered in this version, or is given up.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Finish {
    /// The route's name.
    pub route: Arc<str>,
    /// Path below the spool.
    pub path: String,
    /// The version that was sent.
    pub sent: Stamp,
    /// It was not delivered: it goes to the dead letters with this story.
    pub story: Option<Arc<str>>,
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

/// Dead letters of a route go back into its spool: those named, or all. None: there is no such
/// route, or its thread has ended. An error says why they cannot be looked at.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Option<Result<report::Retry, String>>")]
pub struct Retry {
    /// The route's name.
    pub route: Arc<str>,
    /// Paths below the folder of dead letters.
    pub files: Vec<String>,
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
    /// Takes [`Changed`].
    pub changed: Recipient<Changed>,
    /// Takes [`Revived`].
    pub revived: Recipient<Revived>,
}

/// A route to collect for.
#[derive(Debug)]
pub struct RouteSpool {
    /// The route.
    pub route: Arc<Route>,
    /// The spool's lock, where it was taken before. Without it the route's thread takes it, and
    /// tells of a holder as a problem of the spool.
    pub lock: Option<FolderLock>,
    /// Files that were delivered in an earlier life and stay, each in its version.
    pub kept: Vec<(Arc<str>, Stamp)>,
    /// Where the journal has them, if there is one.
    pub rows: Option<KeptRows>,
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
    fn new(
        commands: SyncSender<Command>,
        wake: SyncSender<()>,
        stop: Arc<AtomicBool>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self {
            commands,
            wake,
            stop,
            thread,
            backlog: VecDeque::new(),
        }
    }

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
    /// Threads of routes that are shut, until they have ended.
    shutting: Vec<(Arc<str>, JoinHandle<()>)>,
    watching: bool,
    daemon: Daemon,
    clock: Clock,
    log: Logger,
    flushing: bool,
    sabotage: Sabotage,
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
            shutting: Vec::new(),
            watching: false,
            daemon: daemon.clone(),
            clock,
            log: log.clone(),
            flushing: false,
            sabotage: Sabotage::default(),
        };
        for spool in routes {
            let name: Arc<str> = spool.route.name.as_str().into();
            let lane = desk::start(daemon.clone(), name.clone(), spool, log, clock)?;
            actor.lanes.insert(name, lane);
        }
        Ok(actor)
    }

    /// The service may be sabotaged.
    pub fn sabotaged_by(&mut self, sabotage: Sabotage) {
        self.sabotage = sabotage;
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
        self.sabotage.at(Point::Collector);
        let Finish {
            route,
            path,
            sent,
            story,
            token,
        } = message;
        let command = Command::Finish {
            path,
            sent,
            story,
            token,
        };
        self.pass(&route, command, ctx);
    }
}

impl Handler<Forget> for CollectorActor {
    type Result = ();
    fn handle(&mut self, message: Forget, ctx: &mut Self::Context) {
        self.pass(&message.route, Command::Forget { path: message.path }, ctx);
    }
}

impl Handler<Retry> for CollectorActor {
    type Result = ResponseFuture<Option<Result<report::Retry, String>>>;
    fn handle(&mut self, message: Retry, ctx: &mut Self::Context) -> Self::Result {
        let Retry { route, files } = message;
        if !self.lanes.contains_key(&route) {
            return Box::pin(std::future::ready(None));
        }
        let (answer, answered) = oneshot::channel();
        self.pass(&route, Command::Retry { files, answer }, ctx);
        Box::pin(async move { answered.await.ok() })
    }
}

impl Handler<Shutdown> for CollectorActor {
    type Result = ResponseFuture<bool>;
    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        for lane in self.lanes.values_mut() {
            lane.flush();
            lane.stop();
        }
        let lanes = self.lanes.drain().map(|(_, lane)| lane.thread);
        let shutting = self.shutting.drain(..).map(|(_, thread)| thread);
        let threads: Vec<_> = lanes.chain(shutting).collect();
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
