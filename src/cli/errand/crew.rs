//! The worker of a one-shot command and who watches it: one at a time, under the guard. A worker
//! without a sign of life is ended and fenced, its connection kept aside, and the next job gets a
//! fresh one. Every wait here ends: with a report, a verdict, or a signal.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use slog::{Logger, o};

use super::Errand;
use super::stop::Stop;
use crate::cli::guard::{Guard, Verdict};
use crate::clock::{self, Mono};
use crate::config::{Config, Route};
use crate::core::restart::Gate;
use crate::ftp::{Limit, Quirks, Setup};
use crate::pulse::{Folder, LookUps, WorkerHandle};
use crate::spool::journal::Journal;
use crate::sys::fence::Pair;
use crate::worker::{self, Job, JobResult, Mailbox, Report, Terms, Work};

/// Between two looks at the worker, which also show its progress.
const LOOK: Duration = Duration::from_millis(50);
/// Workers that could not be ended and are left behind: with more, the command gives up.
const LEFT_BEHIND: usize = 2;
/// How long the goodbye to the server may take at the end.
const GOODBYE: Duration = Duration::from_secs(6);

/// How a job ended.
pub enum Done {
    /// The worker's report.
    Told(JobResult),
    /// The worker was without a sign of life and is ended.
    Wedged(Verdict),
    /// The worker's thread is gone (a bug).
    Lost,
    /// It was to be broken off, and the worker did not come back in time.
    Stopped,
    /// No further worker can be had.
    Impossible(String),
}

/// The worker, and what is left of earlier ones.
pub struct Crew {
    config: Config,
    terms: Arc<Terms>,
    folder: Folder,
    look_ups: LookUps,
    /// What is learned of the server.
    quirks: Quirks,
    journal: Journal,
    log: Logger,
    stop: Stop,
    tell: Sender<Report>,
    told: Receiver<Report>,
    epoch: u64,
    job: u64,
    gate: Gate,
    due: Mono,
    worker: Option<(Guard, Mailbox)>,
    /// Connections of ended workers, oldest first: a reset would let the server go on with what
    /// it has, before the next attempt has fenced that off.
    aside: VecDeque<Pair>,
    ended: Vec<Arc<WorkerHandle>>,
    /// Whether a session ever stood.
    reached: bool,
}

impl Crew {
    /// Nobody works yet. `folder` is the route's remote one.
    pub fn new(errand: Errand, folder: Folder, journal: Journal, log: Logger) -> Self {
        let Errand {
            config,
            route,
            stop,
            ..
        } = errand;
        let policy = config.heartbeat.policy();
        let terms = Terms {
            route: Arc::new(route),
            timers: config.timers.clone(),
            detection: policy.detection(),
            hold: config.quarantine.hold,
        };
        // One worker, one job at a time: reports of ended ones are all that could pile up.
        let (tell, told) = channel();
        let now = clock::mono();
        Self {
            terms: Arc::new(terms),
            folder,
            look_ups: LookUps::default(),
            quirks: Quirks::default(),
            journal,
            log,
            stop,
            tell,
            told,
            epoch: 0,
            job: 0,
            gate: Gate::new(policy.shortest_life(), now),
            due: now,
            worker: None,
            aside: VecDeque::new(),
            ended: Vec::new(),
            reached: false,
            config,
        }
    }

    /// The route's settings.
    pub fn route(&self) -> &Arc<Route> {
        &self.terms.route
    }

    /// The route's remote folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the server let us in, at any time.
    pub fn reached(&self) -> bool {
        self.reached
    }

    /// Listens to signals.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Has a job done and shows its progress. It is broken off once `leaves` says so, which is told
    /// whether a signal came. From then or from the signal on it has `shutdown.grace`.
    pub fn run(
        &mut self,
        work: Work,
        leaves: impl Fn(bool) -> bool,
        mut show: impl FnMut(&WorkerHandle),
    ) -> Done {
        if let Err(why) = self.man() {
            return why;
        }
        let Some((guard, mailbox)) = &mut self.worker else {
            return Done::Lost;
        };
        self.job += 1;
        let handle = Arc::clone(guard.handle());
        mailbox.give(Job {
            id: self.job,
            epoch: self.epoch,
            terms: Arc::clone(&self.terms),
            quirks: self.quirks.clone(),
            work,
        });
        handle.fence.wake();
        let mut leaving = None;
        loop {
            match self.told.recv_timeout(LOOK) {
                Ok(report) if report.epoch == self.epoch && report.job == self.job => {
                    self.reached |= handle.has_session();
                    return Done::Told(report.result);
                }
                // Of a worker that was ended: what it did stands in its attempt.
                Ok(_) => continue,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let now = clock::mono();
            show(&handle);
            self.reached |= handle.has_session();
            if let Some(verdict) = guard.look(now) {
                self.end();
                return Done::Wedged(verdict);
            }
            if handle.fence.finished() {
                self.end();
                return Done::Lost;
            }
            let signalled = self.stop.came().is_some();
            let broken_off = leaves(signalled);
            if signalled || broken_off {
                let since = *leaving.get_or_insert(now);
                if now > since + self.config.shutdown_grace {
                    self.end();
                    return Done::Stopped;
                }
            }
            if broken_off {
                handle.fence.interrupt(handle.deadline().0);
            }
        }
    }

    /// Waits that long; false if a signal came.
    pub fn pause(&mut self, time: Duration) -> bool {
        let end = clock::mono() + time;
        loop {
            let now = clock::mono();
            if let Some((guard, _)) = &mut self.worker
                && guard.look(now).is_some()
            {
                self.end();
            }
            if self.stop.came().is_some() {
                return false;
            }
            if now >= end {
                return true;
            }
            self.stop.wait(LOOK.min(end - now));
        }
    }

    /// Lets the connections go that are kept aside; true if there were some.
    pub fn release(&mut self) -> bool {
        let any = !self.aside.is_empty();
        self.aside.drain(..).for_each(Pair::reset);
        any
    }

    /// Says goodbye to the server, within bounds.
    pub fn leave(mut self) {
        self.release();
        let Some((mut guard, mailbox)) = self.worker.take() else {
            return;
        };
        drop(mailbox);
        guard.handle().fence.wake();
        let end = clock::mono() + GOODBYE;
        while !guard.handle().fence.finished() && clock::mono() < end {
            if guard.look(clock::mono()).is_some() {
                break;
            }
            // A signal that came before must not make this spin.
            let _ = self.told.recv_timeout(LOOK);
        }
        if !guard.handle().fence.finished() {
            guard.handle().fence.end().reset();
        }
    }

    /// Sees to it that there is a worker.
    fn man(&mut self) -> Result<(), Done> {
        let gone = |(guard, _): &(Guard, Mailbox)| guard.handle().fence.finished();
        if self.worker.as_ref().is_some_and(gone) {
            self.end();
        }
        if self.worker.is_some() {
            return Ok(());
        }
        self.ended.retain(|handle| !handle.fence.finished());
        if self.ended.len() >= LEFT_BEHIND {
            let why = "workers cannot be ended (a disk that hangs?)";
            return Err(Done::Impossible(why.into()));
        }
        let left = self.due.saturating_sub(clock::mono());
        if !left.is_zero() && !self.pause(left) {
            return Err(Done::Stopped);
        }
        self.begin()
            .map_err(|e| Done::Impossible(format!("starting a worker failed: {e}")))
    }

    fn begin(&mut self) -> io::Result<()> {
        self.epoch += 1;
        let handle = Arc::new(WorkerHandle::new(self.epoch)?);
        let setup = Setup {
            handle: Arc::clone(&handle),
            route: Arc::clone(&self.terms.route),
            timers: self.terms.timers.clone(),
            detection: self.terms.detection,
            look_ups: self.look_ups.clone(),
            folder: self.folder.clone(),
            limit: Limit::new(self.terms.route.rate_limit),
            quirks: self.quirks.clone(),
            hold: self.terms.hold,
            journal: self.journal.clone(),
            log: self.log.new(o!()),
        };
        let tell = self.tell.clone();
        let deliver = move |report| tell.send(report).map_err(|refused| (refused.0, false));
        let mailbox = worker::start(setup, 0, Box::new(deliver))?;
        self.gate.began(clock::mono());
        self.worker = Some((Guard::new(handle, &self.config), mailbox));
        Ok(())
    }

    /// Ends the worker: from here on the kernel refuses its every byte.
    fn end(&mut self) {
        let Some((guard, _)) = self.worker.take() else {
            return;
        };
        let handle = Arc::clone(guard.handle());
        self.aside.push_back(handle.fence.end().connected());
        self.ended.push(handle);
        while self.aside.len() > self.config.quarantine.per_destination {
            if let Some(oldest) = self.aside.pop_front() {
                oldest.reset();
            }
        }
        self.due = self.gate.ended(clock::mono());
    }
}
