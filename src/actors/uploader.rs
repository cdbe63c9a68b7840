//! The UploaderActor: one slot's voice. It owns its worker's mailbox, samples the pulse cell at
//! each Ping and hands work over. It judges nothing and never touches the FTP client.
//! Under `actix::Supervisor`: each life starts a fresh worker in `started`.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::SendError;
use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Recipient, Supervised, WrapFuture,
};
use slog::{Logger, error, warn};

use super::messages::{EndTask, Give, Outcome, Ping, Pong, Ready, Retire};
use crate::ftp::{Limit, Quirks, Setup};
use crate::pulse::{Folder, LookUps, Point, Sabotage, WorkerHandle};
use crate::spool::journal::Journal;
use crate::worker::{self, Mailbox, Terms};

/// Messages that may wait for one slot: a Ping, a job, an EndTask, a Retire, and their successors.
const MAILBOX: usize = 16;
/// Pause before an answer is offered again to a daemon whose mailbox is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// What every life of a slot needs.
#[derive(Clone)]
pub struct Slot {
    /// Its number in the service.
    pub index: usize,
    /// Its number in its route.
    pub number: u32,
    /// The settings that its first worker begins with; each job brings its own.
    pub terms: Arc<Terms>,
    /// Where look-ups that cannot end are counted.
    pub look_ups: LookUps,
    /// The route's remote folder.
    pub folder: Folder,
    /// The route's rate limit.
    pub limit: Limit,
    /// The journal.
    pub journal: Journal,
    /// What a test has armed.
    pub sabotage: Sabotage,
    /// The slot's logger.
    pub log: Logger,
    /// The daemon.
    pub ready: Recipient<Ready>,
    /// The daemon.
    pub pong: Recipient<Pong>,
    /// The daemon.
    pub outcome: Recipient<Outcome>,
}

/// The actor of one slot.
pub struct UploaderActor {
    slot: Slot,
    epoch: u64,
    /// Without a mailbox it says goodbye, and is watched until it has left.
    worker: Option<(Arc<WorkerHandle>, Option<Mailbox>)>,
}

impl UploaderActor {
    /// An actor whose first worker has this epoch.
    pub fn new(slot: Slot, epoch: u64) -> Self {
        Self {
            slot,
            epoch,
            worker: None,
        }
    }

    fn begin(&mut self) -> std::io::Result<()> {
        let slot = &self.slot;
        let handle = WorkerHandle::new(self.epoch)?.sabotaged_by(slot.sabotage.clone());
        let handle = Arc::new(handle);
        let setup = Setup {
            handle: Arc::clone(&handle),
            route: Arc::clone(&slot.terms.route),
            timers: slot.terms.timers.clone(),
            detection: slot.terms.detection,
            look_ups: slot.look_ups.clone(),
            folder: slot.folder.clone(),
            limit: slot.limit.clone(),
            // Each job brings those of its destination.
            quirks: Quirks::default(),
            hold: slot.terms.hold,
            journal: slot.journal.clone(),
            log: slot.log.clone(),
        };
        let outcome = slot.outcome.clone();
        let mailbox = worker::start(
            setup,
            slot.index,
            Box::new(move |report| {
                outcome
                    .try_send(Outcome(report))
                    .map_err(|refused| match refused {
                        SendError::Full(Outcome(report)) => (report, true),
                        SendError::Closed(Outcome(report)) => (report, false),
                    })
            }),
        )?;
        self.worker = Some((handle, Some(mailbox)));
        Ok(())
    }

    fn current(&self, epoch: u64) -> Option<&(Arc<WorkerHandle>, Option<Mailbox>)> {
        self.worker
            .as_ref()
            .filter(|(handle, _)| handle.epoch == epoch)
    }
}

impl Actor for UploaderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.worker = None;
        if let Err(error) = self.begin() {
            error!(self.slot.log, "starting a worker failed"; "epoch" => self.epoch,
                "error" => %error, "next" => "the daemon tries again");
            return;
        }
        let Some((handle, _)) = &self.worker else {
            return;
        };
        let ready = Ready {
            slot: self.slot.index,
            handle: Arc::clone(handle),
        };
        // Waits for room in the daemon's mailbox: a slot that is never announced is lost.
        let sent = self.slot.ready.send(ready);
        let log = self.slot.log.clone();
        actix::AsyncContext::spawn(
            ctx,
            async move {
                if sent.await.is_err() {
                    warn!(log, "the daemon is gone"; "next" => "the service ends");
                }
            }
            .into_actor(self),
        );
    }
}

impl Supervised for UploaderActor {}

impl Handler<Ping> for UploaderActor {
    type Result = ();

    fn handle(&mut self, ping: Ping, ctx: &mut Self::Context) {
        self.slot.sabotage.at(Point::Uploader);
        let Some((handle, _)) = self.current(ping.epoch) else {
            return;
        };
        let sample = handle.sample(ping.seq);
        let pong = Pong {
            slot: self.slot.index,
            epoch: ping.epoch,
            seq: ping.seq,
            sample,
        };
        self.answer(pong, ctx);
    }
}

impl UploaderActor {
    /// A Pong that finds no room is offered again: the daemon sends no further Ping without it.
    /// One at a time, as there is one Ping at a time.
    fn answer(&mut self, pong: Pong, ctx: &mut Context<Self>) {
        if let Err(SendError::Full(pong)) = self.slot.pong.try_send(pong) {
            ctx.run_later(FULL_PAUSE, move |actor, ctx| {
                if actor.current(pong.epoch).is_some() {
                    actor.answer(pong, ctx);
                }
            });
        }
    }
}

impl Handler<Give> for UploaderActor {
    type Result = ();

    fn handle(&mut self, Give(job): Give, _: &mut Self::Context) {
        let Some((handle, mailbox)) = self.current(job.epoch) else {
            return;
        };
        if !mailbox.as_ref().is_some_and(|mailbox| mailbox.give(job)) {
            // The heartbeat finds a worker that takes no job: its mailbox is empty otherwise.
            warn!(self.slot.log, "the worker took no job"; "epoch" => handle.epoch,
                "next" => "the heartbeat ends it");
        }
        handle.fence.wake();
    }
}

impl Handler<EndTask> for UploaderActor {
    type Result = ();

    fn handle(&mut self, end: EndTask, ctx: &mut Self::Context) {
        if end.next <= self.epoch {
            return;
        }
        self.epoch = end.next;
        self.worker = None;
        // The Supervisor restarts the context; queued messages survive into the new life.
        ctx.stop();
    }
}

impl Handler<Retire> for UploaderActor {
    type Result = ();

    fn handle(&mut self, _: Retire, _: &mut Self::Context) {
        if let Some((handle, mailbox)) = &mut self.worker {
            *mailbox = None;
            handle.fence.wake();
        }
    }
}
