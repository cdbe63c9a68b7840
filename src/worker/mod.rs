//! The worker: the OS thread that does a slot's blocking FTP I/O, the only place where FTP may
//! block. It takes jobs from its mailbox, answers Pings at its safe points, and reports; it
//! decides nothing about journal or source, and after its fence it can change nothing any more.

mod ask;
mod direct;
mod download;
mod failure;
mod job;
mod lock;
mod place;
mod poll;
mod tidy;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use slog::{debug, o, warn};

pub use ask::{Answer, Ask};
pub use download::{Download, Got};
pub use failure::{Failure, FailureKind};
pub use job::{Job, Report, Result as JobResult, Terms, Upload, Work};
pub use poll::{Dates, Poll, Polled};
pub use tidy::{Look, Seen, Sweep, base};

use crate::clock::{self, Mono};
use crate::core::names::Phase;
use crate::ftp::{Session, Setup};
use crate::sys::thread;

/// Jobs that wait for one worker: the daemon gives one at a time, and one more at the end.
const MAILBOX: usize = 4;
/// Pause before a report is offered again to a daemon whose mailbox is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Where reports go. An error gives the report back: the mailbox is full (true) or gone (false).
pub type Deliver = Box<dyn Fn(Report) -> Result<(), (Report, bool)> + Send>;

/// The actor's end of a worker's mailbox.
#[derive(Debug)]
pub struct Mailbox(SyncSender<Job>);

impl Mailbox {
    /// Hands a job over; the worker has to be woken then. False if it has no room or is gone.
    pub fn give(&self, job: Job) -> bool {
        match self.0.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Starts the worker of `setup.handle`. It runs until its mailbox is dropped or it is ended.
pub fn start(setup: Setup, slot: usize, deliver: Deliver) -> io::Result<Mailbox> {
    let (give, take) = sync_channel(MAILBOX);
    let name = format!(
        "up-{}-{slot}",
        setup.route.name.chars().take(9).collect::<String>()
    );
    std::thread::Builder::new().name(name).spawn(move || {
        let handle = setup.handle.clone();
        let _attached = handle.fence.attach();
        let log = setup.log.new(o!("epoch" => handle.epoch));
        if let Err(error) = thread::lower_priority() {
            warn!(log, "lowering the worker's priority failed"; "error" => %error,
                "next" => "it runs with the daemon's priority");
        }
        Worker {
            setup: Setup { log, ..setup },
            slot,
            take,
            deliver,
            session: None,
            idle_since: clock::mono(),
        }
        .run();
    })?;
    Ok(Mailbox(give))
}

struct Worker {
    setup: Setup,
    slot: usize,
    take: Receiver<Job>,
    deliver: Deliver,
    session: Option<Session>,
    idle_since: Mono,
}

impl Worker {
    fn run(mut self) {
        self.setup.handle.begin(Phase::Idle, None);
        if let Err(error) = self.setup.handle.born() {
            warn!(self.setup.log, "the worker's thread cannot be watched"; "error" => %error,
                "next" => "it is judged by its answers and sockets alone");
        }
        while !self.setup.handle.fence.ended() {
            match self.take.try_recv() {
                Ok(job) => {
                    self.renew(&job);
                    let report = job::run(&self.setup, self.slot, &mut self.session, job);
                    self.setup.handle.begin(Phase::Idle, None);
                    self.idle_since = clock::mono();
                    self.report(report);
                }
                Err(TryRecvError::Disconnected) => {
                    if let Some(session) = self.session.take() {
                        session.quit();
                    }
                    return;
                }
                Err(TryRecvError::Empty) => self.idle(),
            }
        }
        if let Some(session) = self.session.take() {
            session.discard();
        }
    }

    /// Takes on the settings of a job; a session of other settings has to go before.
    fn renew(&mut self, Job { terms, quirks, .. }: &Job) {
        let setup = &mut self.setup;
        setup.quirks = quirks.clone();
        if setup.route == terms.route
            && setup.timers == terms.timers
            && setup.detection == terms.detection
            && setup.hold == terms.hold
        {
            return;
        }
        setup.route = Arc::clone(&terms.route);
        setup.timers = terms.timers.clone();
        setup.detection = terms.detection;
        setup.hold = terms.hold;
        if let Some(session) = self.session.take() {
            debug!(self.setup.log, "session ended"; "by" => "another setting",
                "next" => "the file gets a new one");
            session.quit();
            self.setup.handle.note_session(false);
        }
    }

    /// Waits once for the next job, awake for Pings; an idle session is kept for a while.
    fn idle(&mut self) {
        let handle = self.setup.handle.clone();
        let waited = match &self.session {
            None => handle.fence.wait(None, None).map(|_| false),
            Some(session) => {
                let idle = clock::mono().saturating_sub(self.idle_since);
                let left = self.setup.timers.idle_session.saturating_sub(idle);
                // An event on an idle control connection can only mean its end.
                let by_server = session.idle(left).unwrap_or(true);
                if by_server || left.is_zero() {
                    self.end_session(by_server);
                }
                Ok(false)
            }
        };
        if let Err(error) = waited {
            // Nothing is left to wait with: the heartbeat will find a worker that is gone.
            warn!(self.setup.log, "the worker cannot wait"; "error" => %error,
                "next" => "it ends, the heartbeat replaces it");
            handle.fence.end();
        }
        handle.ack();
    }

    fn end_session(&mut self, by_server: bool) {
        debug!(self.setup.log, "idle session ended";
            "by" => if by_server { "server" } else { "us" },
            "next" => "the next file gets a new one");
        match self.session.take() {
            Some(session) if by_server => session.discard(),
            Some(session) => session.quit(),
            None => {}
        }
        self.setup.handle.note_session(false);
        self.setup.handle.begin(Phase::Idle, None);
    }

    fn report(&self, mut report: Report) {
        let handle = &self.setup.handle;
        loop {
            report = match (self.deliver)(report) {
                Ok(()) | Err((_, false)) => return,
                Err((report, true)) => report,
            };
            if handle.fence.ended() || handle.fence.wait(None, Some(FULL_PAUSE)).is_err() {
                return;
            }
            handle.ack();
        }
    }
}
