//! The DaemonActor: it alone judges beats, dispatches work, and decides on every local effect of
//! an upload (S1.1 to S1.7). It never waits: not for a worker, not for a disk, not for a mailbox.
//! What it decides with stands in `core`; this shell carries decisions out.
//! - `slots`, `room`: the slot table, starts and restarts, the event loop of the actors;
//! - `beats`: Pings, Pongs, interrupts;
//! - `verdict`, `leaving`: the end of a task, in the order of its steps, and of its thread;
//! - `incidents`: the record of each;
//! - `route`, `sources`, `dispatch`, `reports`: a route and its files, from found to finished;
//! - `sweeps`, `looks`: old temp names; `destination`: what routes to one server share, its seats;
//! - `reload`: new settings while it runs;
//! - `polls`, `downloads`: the same for routes that download;
//! - `giving_up`: files that fail for too long; `tell`: what it says of itself.

mod beats;
mod destination;
mod dispatch;
mod downloads;
mod giving_up;
mod incidents;
mod leaving;
mod looks;
mod polls;
mod record;
mod reload;
mod reports;
mod room;
mod route;
mod slots;
mod sources;
mod sweeps;
mod tell;
mod verdict;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Recipient};
use slog::{Logger, debug, error, info};
use tokio::sync::watch;

use self::destination::Destination;
use self::incidents::Recorded;
use self::leaving::Leaving;
use self::record::Record;
use self::reload::Reloads;
pub use self::reload::{Applied, Reload};
use self::room::Room;
use self::route::RouteState;
use self::slots::Slot;
use super::collector::{Change, Finish, Forget, Want};
use super::journal::Journaled;
use super::messages::{Drain, Outcome, Pong, Ready, Released, Resume, Retire, Seats, Strand, Tick};
use crate::clock::{self, Mono};
use crate::config::{Config, Route};
use crate::core::assist::Counters;
use crate::core::timers;
use crate::core::vouch::Vouchers;
use crate::failpoint;
use crate::metrics::Metrics;
use crate::pulse::{Claims, LookUps, Point, Sabotage};
use crate::report::Incident;
use crate::spool::Stamp;
use crate::spool::journal::{Journal, OldName, Unfinished};

/// Messages that may wait: every slot can have a Pong, a Ready and an Outcome under way, every
/// route a few batches; beyond that senders keep theirs and try again.
const MAILBOX: usize = 4096;
/// What the daemon tells the process when it comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Drained: nothing is in work any more, or the grace is over.
    Drained,
    /// It cannot heal here, for that reason: the process has to be restarted (exit code 70).
    Escalated(&'static str),
}

/// The other actors, as the daemon knows them.
pub struct Peers {
    /// The quarantine: stranded pairs.
    pub strand: Recipient<Strand>,
    /// The quarantine: a destination without a seat.
    pub seats: Recipient<Seats>,
    /// The quarantine: a file that is about to be resumed.
    pub resume: Recipient<Resume>,
    /// The collector: credit.
    pub want: Recipient<Want>,
    /// The collector: the end of a delivered source.
    pub finish: Recipient<Finish>,
    /// The collector: a file that the daemon has dropped.
    pub forget: Recipient<Forget>,
    /// The collector: routes that come, change and go.
    pub change: Recipient<Change>,
}

/// A message to the collector or the quarantine that waits for room. Bounded by the files in
/// work and the slots, which are bounded by credit.
enum Unsent {
    Strand(Strand),
    Finish(Finish),
    Forget(Forget),
}

/// The daemon.
pub struct DaemonActor {
    config: Arc<Config>,
    agent: String,
    peers: Peers,
    metrics: Metrics,
    log: Logger,
    /// The event loop of all UploaderActors; one that is dead or wedged is replaced.
    room: Room,
    slots: Vec<Slot>,
    routes: Vec<RouteState>,
    destinations: Vec<Destination>,
    leaving: Vec<Leaving>,
    unsent: VecDeque<Unsent>,
    incidents: VecDeque<Recorded>,
    incident: u64,
    /// How often one was recorded or changed.
    incident_changes: u64,
    job: u64,
    /// The slot that is looked at first when work is given.
    turn: usize,
    /// Final names in work or in doubt, with their destination, and the route that has them: one
    /// at a time.
    targets: HashMap<(String, String), usize>,
    /// Incidents whose pair is held, and its destination and final name.
    stranded: HashMap<u64, (String, String)>,
    /// Final names that attempts have chosen themselves.
    claims: Claims,
    vouchers: Vouchers,
    record: Record,
    reloads: Reloads,
    /// What an earlier life left behind, until the first start.
    unfinished: Vec<Unfinished>,
    old_names: Vec<OldName>,
    look_ups: LookUps,
    draining: Option<Mono>,
    retired: bool,
    escalating: bool,
    turned: Arc<AtomicU64>,
    problems: watch::Sender<Vec<String>>,
    started: f64,
    over: Option<Box<dyn FnOnce(Over) + Send>>,
    counters: Counters,
    sabotage: Sabotage,
}

/// What a daemon is made of.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// This installation's id in temp names.
    pub agent: String,
    /// The other actors.
    pub peers: Peers,
    /// The metrics.
    pub metrics: Metrics,
    /// The logger.
    pub log: Logger,
    /// Milliseconds of the monotonic clock at the last Tick: whether the loop turns.
    pub turned: Arc<AtomicU64>,
    /// Told of the reasons for which the spools cannot be used.
    pub problems: watch::Sender<Vec<String>>,
    /// Called once, when the service is over.
    pub over: Box<dyn FnOnce(Over) + Send>,
    /// What it gets on with, while it is at it for long.
    pub counters: Counters,
    /// What a test has armed.
    pub sabotage: Sabotage,
    /// The journal.
    pub journal: Journal,
    /// What it knows from an earlier life.
    pub unfinished: Vec<Unfinished>,
    /// Temp names that it knows to be taken away once more.
    pub sweeps: Vec<OldName>,
    /// Files that were downloaded in an earlier life and stay on the server, by route.
    pub kept: BTreeMap<String, Vec<(Arc<str>, Stamp)>>,
    /// Why routes that keep their files must not send.
    pub no_resend: Option<String>,
    /// The incidents of earlier lives, oldest first, and the last number that one got.
    pub incidents: (Vec<Incident>, u64),
}

impl DaemonActor {
    /// A daemon that does not run yet.
    pub fn new(parts: Parts) -> Self {
        let look_ups = LookUps::default();
        let vouchers = if parts.config.heartbeat.vouchers {
            Vouchers::all()
        } else {
            Vouchers::none()
        };
        debug!(parts.log, "vouchers registered"; "ids" => vouchers.ids().collect::<Vec<_>>().join(" "),
            "next" => "they answer for silent workers");
        let mut kept = parts.kept;
        let state = |r: &Arc<Route>| {
            let of = look_ups.of_another_route();
            let mut state = RouteState::new(Arc::clone(r), of, &parts.config);
            state.keep_from_sending(parts.no_resend.as_ref());
            if let (Some(polls), Some(kept)) = (&mut state.polls, kept.remove(&r.name)) {
                polls.know(kept);
            }
            state
        };
        let routes: Vec<_> = parts.config.routes.values().map(state).collect();
        let mut daemon = Self {
            routes,
            destinations: Vec::new(),
            config: parts.config,
            agent: parts.agent,
            peers: parts.peers,
            metrics: parts.metrics,
            log: parts.log,
            room: Room::new(),
            slots: Vec::new(),
            leaving: Vec::new(),
            unsent: VecDeque::new(),
            incidents: incidents::recalled(parts.incidents.0),
            incident: parts.incidents.1,
            incident_changes: 0,
            job: 0,
            turn: 0,
            targets: HashMap::new(),
            stranded: HashMap::new(),
            claims: Claims::default(),
            vouchers,
            record: Record::new(parts.journal),
            reloads: Reloads::default(),
            unfinished: parts.unfinished,
            old_names: parts.sweeps,
            look_ups,
            draining: None,
            retired: false,
            escalating: false,
            turned: parts.turned,
            problems: parts.problems,
            started: clock::unix(),
            over: Some(parts.over),
            counters: parts.counters,
            sabotage: parts.sabotage,
        };
        daemon.make_destinations();
        daemon
    }

    fn finish_service(&mut self, how: Over) {
        if let Some(over) = self.over.take() {
            over(how);
        }
    }

    /// Sends what found no room before; what is refused for good escalates.
    fn flush(&mut self) {
        use actix::prelude::SendError;
        while let Some(message) = self.unsent.pop_front() {
            let refused = match message {
                Unsent::Strand(m) => self.peers.strand.try_send(m).map_err(|e| match e {
                    SendError::Full(m) => Some(Unsent::Strand(m)),
                    SendError::Closed(_) => None,
                }),
                Unsent::Finish(m) => self.peers.finish.try_send(m).map_err(|e| match e {
                    SendError::Full(m) => Some(Unsent::Finish(m)),
                    SendError::Closed(_) => None,
                }),
                Unsent::Forget(m) => self.peers.forget.try_send(m).map_err(|e| match e {
                    SendError::Full(m) => Some(Unsent::Forget(m)),
                    SendError::Closed(_) => None,
                }),
            };
            match refused {
                Ok(()) => {}
                Err(Some(message)) => {
                    self.unsent.push_front(message);
                    return;
                }
                Err(None) => self.lost("an actor is gone"),
            }
        }
    }

    fn lost(&mut self, what: &'static str) {
        if !self.escalating {
            self.escalating = true;
            error!(self.log, "a part of the service is gone"; "error" => what,
                "next" => "the process ends with 70 to be restarted");
            // Nothing may be published any more whose source nobody can finish.
            self.draining = Some(clock::mono());
            self.retire();
            self.finish_service(Over::Escalated(what));
        }
    }

    /// Sends every worker away; what one still has in work is cut off.
    fn retire(&mut self) {
        if std::mem::replace(&mut self.retired, true) {
            return;
        }
        for slot in &mut self.slots {
            match (&slot.handle, slot.job.is_some()) {
                (Some(handle), true) => handle.fence.end().reset(),
                _ => drop(slot.addr.try_send(Retire)),
            }
        }
    }

    /// While draining: the end comes when nothing is in work any more or the grace is over.
    fn drain(&mut self, now: Mono) {
        let Some(until) = self.draining else { return };
        let in_work = self.slots.iter().any(|s| s.job.is_some());
        let busy = in_work || !self.unsent.is_empty() || self.record.busy();
        let finishing = self.routes.iter().any(|r| r.finishing > 0);
        let late = now >= until;
        if (busy || finishing) && !late {
            return;
        }
        self.retire();
        let gone = self
            .slots
            .iter()
            .all(|s| s.handle.as_ref().is_none_or(|h| h.fence.finished()));
        if gone || late {
            info!(self.log, "drained"; "in_work" => self.slots.iter().filter(|s| s.job.is_some()).count());
            let how = if self.escalating {
                Over::Escalated("a part of it is gone")
            } else {
                Over::Drained
            };
            self.finish_service(how);
        }
    }
}

impl Actor for DaemonActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let this = ctx.address();
        let unfinished = std::mem::take(&mut self.unfinished);
        self.remember(unfinished);
        self.take_up_all_sweeps();
        self.tell_problems();
        for index in 0..self.routes.len() {
            self.fit_slots(index, &this);
            self.want(index);
        }
    }
}

impl Handler<Tick> for DaemonActor {
    type Result = ();

    fn handle(&mut self, tick: Tick, ctx: &mut Self::Context) {
        self.sabotage.at(Point::Daemon);
        failpoint::at("daemon-ticks");
        let now = clock::mono();
        // Ticks that queued up behind a block are one: each would count a miss otherwise.
        let period = timers::tick_period(&self.policy());
        let scheduled = tick.scheduled.max(now.saturating_sub(period));
        self.turned.store(now.as_millis() as u64, SeqCst);
        self.flush();
        let this: Addr<Self> = ctx.address();
        for index in 0..self.slots.len() {
            self.beat(index, scheduled, now, &this);
        }
        self.see_them_leave(now);
        self.see_the_others();
        self.retry_journal(now);
        self.move_on(now, &this);
        self.age_routes(now);
        self.dispatch(now);
        self.drain(now);
    }
}

impl Handler<Ready> for DaemonActor {
    type Result = ();

    fn handle(&mut self, ready: Ready, _: &mut Self::Context) {
        self.ready(ready);
        self.dispatch(clock::mono());
    }
}

impl Handler<Pong> for DaemonActor {
    type Result = ();

    fn handle(&mut self, pong: Pong, _: &mut Self::Context) {
        self.pong(pong);
    }
}

impl Handler<Outcome> for DaemonActor {
    type Result = ();

    fn handle(&mut self, Outcome(report): Outcome, _: &mut Self::Context) {
        let now = clock::mono();
        self.outcome(report, now);
        self.flush();
        self.dispatch(now);
        self.drain(now);
    }
}

impl Handler<Journaled> for DaemonActor {
    type Result = ();

    fn handle(&mut self, journaled: Journaled, _: &mut Self::Context) {
        self.journaled(journaled);
        self.flush();
    }
}

impl Handler<Released> for DaemonActor {
    type Result = ();

    fn handle(&mut self, released: Released, _: &mut Self::Context) {
        self.released(released);
        self.dispatch(clock::mono());
    }
}

impl Handler<Drain> for DaemonActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, _: &mut Self::Context) {
        if self.draining.is_none() {
            self.draining = Some(drain.until);
        }
        self.drain(clock::mono());
    }
}
