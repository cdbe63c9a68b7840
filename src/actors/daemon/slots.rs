//! The slot table: each slot's worker, its starts and restarts.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Supervisor};
use slog::{error, o, warn};

use super::DaemonActor;
use super::beats::{Silences, Trail};
use super::leaving::Leaving;
use crate::actors::messages::{EndTask, Ready, Retire};
use crate::actors::uploader::{self, UploaderActor};
use crate::clock::{self, Mono};
use crate::core::evidence::Sample;
use crate::core::heartbeat::{Heartbeat, Policy};
use crate::core::names::{Cause, Phase};
use crate::core::restart::Gate;
use crate::core::vouch::Witness;
use crate::log;
use crate::pulse::{Attempt, WorkerHandle};
use crate::report::SlotStatus;
use crate::worker::Terms;

/// A place for one concurrent upload; lives as long as its route needs it.
pub struct Slot {
    pub route: usize,
    pub number: u32,
    pub addr: Addr<UploaderActor>,
    /// The number of the event loop that its actor lives on.
    pub room: u64,
    /// What the event loop was asked when the worker was started.
    pub asked: u64,
    /// The number of its worker; +1 at every replacement.
    pub epoch: u64,
    /// Its worker, between Ready and end.
    pub handle: Option<Arc<WorkerHandle>>,
    /// Without a worker: when the next one is started, or given up if it was started and did not
    /// come.
    pub due: Mono,
    pub starting: bool,
    pub stay: Stay,
    pub beat: Heartbeat,
    pub witness: Witness,
    pub silences: Silences,
    pub trail: Trail,
    /// The sample of its last good beat.
    pub last_good: Option<Sample>,
    /// The phase that was interrupted last, and why it did not come to its end.
    pub overdue: Option<(Phase, Cause)>,
    pub gate: Gate,
    pub job: Option<Running>,
    /// The settings of its last job.
    pub terms: Arc<Terms>,
    /// The destination's era when a job was given to it that has to open a session first.
    pub opens: Option<u64>,
    /// Since when its session stands.
    pub session_since: Mono,
}

/// Whether a slot is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It is.
    Stays,
    /// It is not: it gets no more work.
    Leaves,
    /// Its worker was sent away.
    Retired,
    /// Only its place is left.
    Gone,
}

/// What a slot's worker has been given.
pub struct Running {
    pub id: u64,
    pub kind: RunningKind,
}

/// The kinds of it.
pub enum RunningKind {
    /// A file goes up or, where the route downloads, comes down.
    File {
        path: Arc<str>,
        attempt: Arc<Attempt>,
    },
    /// It lists the remote folder of a route that downloads.
    Poll,
    Sweep {
        temps: Vec<String>,
    },
    /// It looks for old temp files; the temp name of its own.
    Look {
        clock: String,
    },
    /// It gives its session up.
    Part,
}

impl Slot {
    pub fn status(&self) -> SlotStatus {
        let (file, file_bytes) = match &self.job {
            Some(Running {
                kind: RunningKind::File { path, attempt },
                ..
            }) => {
                let size = attempt.source().map(|sent| sent.size);
                (Some(log::escape(path).into_owned()), size)
            }
            _ => (None, None),
        };
        SlotStatus {
            slot: self.number,
            epoch: self.epoch,
            phase: self
                .handle
                .as_ref()
                .map_or("none", |h| h.phase().as_str())
                .into(),
            file,
            bytes_sent: self.handle.as_ref().map_or(0, |h| h.bytes()),
            file_bytes,
            failures: self.beat.failures(),
            beats: self.trail.letters(),
            silence_seconds: clock::mono()
                .saturating_sub(self.silences.last_good)
                .as_secs_f64(),
            longest_silence_seconds: self.silences.longest.as_secs_f64(),
        }
    }

    /// Whether it takes a seat at its destination.
    pub fn has_session(&self) -> bool {
        self.handle.as_ref().is_some_and(|h| h.has_session())
    }

    /// Ready for a job.
    pub fn free(&self) -> bool {
        self.handle.is_some() && self.job.is_none() && self.stay == Stay::Stays
    }
}

impl DaemonActor {
    pub(super) fn policy(&self) -> Policy {
        self.config.heartbeat.policy()
    }

    /// How long it takes to convict.
    pub(super) fn detection(&self) -> Duration {
        self.policy().detection()
    }

    /// Gives a route the slots that it is configured to have: makes those that are missing, lets
    /// go those that are too many once they are free.
    pub(super) fn fit_slots(&mut self, route: usize, this: &Addr<Self>) {
        let uploaders = self.routes[route].config.uploaders;
        for slot in self.slots.iter_mut().filter(|s| s.route == route) {
            slot.stay = match slot.stay {
                Stay::Stays if slot.number >= uploaders => Stay::Leaves,
                Stay::Leaves if slot.number < uploaders => Stay::Stays,
                other => other,
            };
        }
        for number in 0..uploaders {
            let known = |s: &Slot| s.route == route && s.number == number;
            match self.slots.iter().position(known) {
                None => self.make_slot(self.slots.len(), route, number, 1, this),
                Some(index) if self.slots[index].stay == Stay::Gone => {
                    self.make_slot(index, route, number, self.slots[index].epoch, this);
                }
                Some(_) => {}
            }
        }
    }

    /// Makes a slot, in a new place or in that of one that is gone.
    fn make_slot(
        &mut self,
        index: usize,
        route: usize,
        number: u32,
        epoch: u64,
        this: &Addr<Self>,
    ) {
        let now = clock::mono();
        let slot = Slot {
            route,
            number,
            addr: self.make_actor(index, route, number, epoch, this),
            room: self.room.number,
            asked: self.room.ask(),
            epoch,
            handle: None,
            due: now + self.detection(),
            starting: true,
            stay: Stay::Stays,
            beat: Heartbeat::new(self.policy(), epoch, now),
            witness: Witness::default(),
            silences: Silences::new(now),
            trail: Trail::default(),
            last_good: None,
            overdue: None,
            // Who is convicted has lived for as long; who dies sooner has crashed.
            gate: Gate::new(self.policy().shortest_life(), now),
            job: None,
            terms: Arc::clone(&self.routes[route].terms),
            opens: None,
            session_since: Mono::ZERO,
        };
        match self.slots.get_mut(index) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
    }

    /// A slot that is to leave, once it has no work: its worker says goodbye, watched like any.
    pub(super) fn let_go(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.stay == Stay::Leaves && slot.job.is_none() && slot.addr.try_send(Retire).is_ok() {
            slot.stay = Stay::Retired;
        }
    }

    /// A slot that was to leave has no worker any more. Its place is kept: whatever is still said
    /// of it is of an old epoch.
    pub(super) fn slot_gone(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.handle = None;
        slot.epoch += 1;
        slot.stay = Stay::Gone;
        let route = slot.route;
        // A worker that was only just begun goes as well; an actor that is gone has none.
        let _ = slot.addr.try_send(Retire);
        self.routes[route].refit = true;
    }

    fn make_actor(
        &mut self,
        index: usize,
        route: usize,
        number: u32,
        epoch: u64,
        this: &Addr<Self>,
    ) -> Addr<UploaderActor> {
        // A dead event loop takes nothing any more: all its slots need a new one.
        if !self.room.arbiter.spawn(std::future::ready(())) {
            error!(self.log, "the uploaders' event loop is gone"; "next" => "a new one is started");
            self.room.replace();
        }
        let name = self.routes[route].config.name.clone();
        let slot = uploader::Slot {
            index,
            number,
            log: self.log.new(o!("route" => name.clone(), "slot" => number)),
            terms: Arc::clone(&self.routes[route].terms),
            look_ups: self.routes[route].look_ups.clone(),
            folder: self.routes[route].folder.clone(),
            limit: self.routes[route].limit.clone(),
            journal: self.record.journal.clone(),
            sabotage: self.sabotage.of_route(&name),
            ready: this.clone().recipient(),
            pong: this.clone().recipient(),
            outcome: this.clone().recipient(),
        };
        Supervisor::start_in_arbiter(&self.room.arbiter.handle(), move |_| {
            UploaderActor::new(slot, epoch)
        })
    }

    /// A fresh worker stands: its life begins.
    pub(super) fn ready(&mut self, ready: Ready) {
        let now = clock::mono();
        let policy = self.policy();
        let slot = &mut self.slots[ready.slot];
        let meant = ready.handle.epoch == slot.epoch && slot.stay != Stay::Gone;
        if !meant || slot.handle.is_some() {
            // A worker that nobody waits for must not wait for ever either.
            ready.handle.fence.end().reset();
            return;
        }
        slot.beat = Heartbeat::new(policy, slot.epoch, now);
        slot.witness = Witness::default();
        slot.last_good = None;
        slot.overdue = None;
        slot.gate.began(now);
        slot.starting = false;
        slot.handle = Some(ready.handle);
    }

    /// A part of the slot is gone (a panic, a dead event loop): what is left of its worker is
    /// ended, the slot built anew.
    pub(super) fn lost_slot(&mut self, index: usize, now: Mono, what: &'static str) {
        error!(self.log, "a slot is lost"; "slot" => index, "error" => what,
            "route" => &self.routes[self.slots[index].route].config.name,
            "next" => "its worker is ended and the slot is built anew");
        self.end_worker(index, now, what);
    }

    /// Without the quarantine no wedge can be ended well, without the collector no file comes:
    /// neither is noticed by a service that has nothing for them at the moment.
    pub(super) fn see_the_others(&mut self) {
        if !self.peers.strand.connected() {
            self.lost("the quarantine is gone");
        } else if !self.peers.finish.connected() {
            self.lost("the collector is gone");
        }
    }

    /// A worker did not come up. One that no event loop was there to start is not the last one:
    /// a handler that never comes back (a bug) holds all actors of its loop.
    fn missing(&mut self, index: usize, now: Mono) {
        let asked = self.slots[index].asked;
        if self.slots[index].room == self.room.number && !self.room.turned(asked) {
            error!(self.log, "the uploaders' event loop is wedged";
                "next" => "a new one is started; the old one is left behind");
            self.room.replace();
        }
        let slot = &mut self.slots[index];
        slot.epoch += 1;
        slot.due = slot.gate.ended(now);
        slot.starting = false;
        warn!(self.log, "a worker did not come up"; "slot" => index,
            "next" => format!("again in {:?}", slot.due.saturating_sub(now)));
    }

    /// Starts the next worker of a slot: by its actor, or by a new actor where that is gone.
    pub(super) fn restart(&mut self, index: usize, now: Mono, this: &Addr<Self>) {
        let patience = self.detection();
        let slot = &mut self.slots[index];
        if slot.starting {
            return self.missing(index, now);
        }
        let (epoch, route, number) = (slot.epoch, slot.route, slot.number);
        slot.due = now + patience;
        slot.starting = true;
        let told = slot.room == self.room.number
            && slot.addr.connected()
            && slot
                .addr
                .try_send(EndTask {
                    epoch: epoch - 1,
                    next: epoch,
                })
                .is_ok();
        if !told {
            let addr = self.make_actor(index, route, number, epoch, this);
            self.slots[index].addr = addr;
            self.slots[index].room = self.room.number;
        }
        self.slots[index].asked = self.room.ask();
    }

    /// Takes the worker out of its slot: from here on its epoch is stale.
    pub(super) fn detach(&mut self, index: usize, now: Mono) -> Option<Arc<WorkerHandle>> {
        let slot = &mut self.slots[index];
        let handle = slot.handle.take()?;
        slot.epoch += 1;
        slot.trail.replaced();
        slot.starting = false;
        slot.due = slot.gate.ended(now);
        self.leaving.push(Leaving {
            handle: Arc::clone(&handle),
            route: slot.route,
            since: now,
            stranded: false,
        });
        Some(handle)
    }
}
