//! The slot table: each slot's worker, its beats, its deadlines, its restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use actix::{Addr, Arbiter, Supervisor};
use slog::{debug, error, o, warn};

use super::{DaemonActor, Leaving};
use crate::actors::messages::{EndTask, Ping, Pong, Ready};
use crate::actors::uploader::{self, UploaderActor};
use crate::clock::{self, Mono};
use crate::core::heartbeat::{Action, Heartbeat, Policy};
use crate::core::names::Beat;
use crate::core::restart::Gate;
use crate::core::timers;
use crate::core::vouch::{Limits, Sample, Witness};
use crate::log;
use crate::pulse::{Attempt, WorkerHandle};
use crate::report::SlotStatus;

/// The event loop on which the UploaderActors live.
pub struct Room {
    arbiter: Arbiter,
    /// Its number: actors of an older one are not spoken to any more.
    number: u64,
    /// How often it was asked to turn.
    asked: u64,
    /// The last asking that it came to.
    turned: Arc<AtomicU64>,
}

impl Room {
    /// The first one.
    pub fn new() -> Self {
        Self {
            arbiter: Arbiter::new(),
            number: 1,
            asked: 0,
            turned: Arc::default(),
        }
    }

    /// Asks it to turn; returns the number of this asking. A dead loop never comes to it.
    fn ask(&mut self) -> u64 {
        self.asked += 1;
        let (turned, asked) = (Arc::clone(&self.turned), self.asked);
        self.arbiter
            .spawn(async move { turned.store(asked, SeqCst) });
        asked
    }

    fn replace(&mut self) {
        *self = Self {
            number: self.number + 1,
            ..Self::new()
        };
    }
}

/// A place for one concurrent upload; lives as long as the service.
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
    pub beat: Heartbeat,
    pub witness: Witness,
    pub samples: (Option<Sample>, Option<Sample>),
    pub gate: Gate,
    pub job: Option<Running>,
}

/// What a slot's worker has been given.
pub struct Running {
    pub id: u64,
    pub kind: RunningKind,
}

/// The kinds of it.
pub enum RunningKind {
    Upload {
        path: Arc<str>,
        attempt: Arc<Attempt>,
    },
    Sweep {
        temps: Vec<String>,
    },
}

impl Slot {
    pub fn status(&self) -> SlotStatus {
        let file = match &self.job {
            Some(Running {
                kind: RunningKind::Upload { path, .. },
                ..
            }) => Some(log::escape(path).into_owned()),
            _ => None,
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
            failures: self.beat.failures(),
        }
    }

    /// Ready for a job.
    pub fn free(&self) -> bool {
        self.handle.is_some() && self.job.is_none()
    }
}

impl DaemonActor {
    fn policy(&self) -> Policy {
        let heartbeat = &self.config.heartbeat;
        Policy {
            interval: heartbeat.interval,
            misses: heartbeat.misses,
        }
    }

    /// How long it takes to convict: (N + 2) intervals.
    pub(super) fn detection(&self) -> Duration {
        self.config.heartbeat.interval * (self.config.heartbeat.misses + 2)
    }

    pub(super) fn make_slots(&mut self, this: &Addr<Self>) {
        let now = clock::mono();
        let heartbeat = self.config.heartbeat.clone();
        for route in 0..self.routes.len() {
            for number in 0..self.routes[route].config.uploaders {
                let index = self.slots.len();
                let addr = self.make_actor(index, route, number, 1, this);
                self.slots.push(Slot {
                    route,
                    number,
                    addr,
                    room: self.room.number,
                    asked: self.room.ask(),
                    epoch: 1,
                    handle: None,
                    due: now + self.detection(),
                    starting: true,
                    beat: Heartbeat::new(self.policy(), 1, now),
                    witness: Witness::default(),
                    samples: (None, None),
                    // Who is convicted has lived for as long; who dies sooner has crashed.
                    gate: Gate::new(heartbeat.interval * (heartbeat.misses + 1), now),
                    job: None,
                });
            }
        }
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
        let config = Arc::clone(&self.routes[route].config);
        let slot = uploader::Slot {
            index,
            number,
            log: self
                .log
                .new(o!("route" => config.name.clone(), "slot" => number)),
            route: config,
            timers: self.config.timers.clone(),
            detection: self.detection(),
            look_ups: self.routes[route].look_ups.clone(),
            sabotage: self.sabotage.clone(),
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
        if ready.handle.epoch != slot.epoch || slot.handle.is_some() {
            // A worker that nobody waits for must not wait for ever either.
            ready.handle.fence.end().reset();
            return;
        }
        slot.beat = Heartbeat::new(policy, slot.epoch, now);
        slot.witness = Witness::default();
        slot.samples = (None, None);
        slot.gate.began(now);
        slot.starting = false;
        slot.handle = Some(ready.handle);
    }

    /// One slot's share of a Tick: deadlines, beats, restarts.
    pub(super) fn beat(&mut self, index: usize, scheduled: Mono, now: Mono, this: &Addr<Self>) {
        if self.retired {
            return;
        }
        let Some(handle) = self.slots[index].handle.clone() else {
            if now >= self.slots[index].due {
                self.restart(index, now, this);
            }
            return;
        };
        let (phase, deadline) = handle.deadline();
        if timers::overdue(phase, deadline, handle.fence.last_interrupt(), now) {
            debug!(self.log, "phase over its bound"; "slot" => index,
                "phase" => handle.phase().as_str(), "next" => "the session is interrupted");
            handle.fence.interrupt(phase);
        }
        let slot = &mut self.slots[index];
        match slot.beat.tick(scheduled, now) {
            Action::Wait => {}
            Action::Unanswered => self.count(index, Beat::Missed),
            Action::Ping { seq } => {
                // A mailbox that is full or closed answers nothing: the beat is missed.
                let ping = Ping {
                    epoch: slot.epoch,
                    seq,
                };
                if slot.addr.try_send(ping).is_err() {
                    slot.beat.not_sent();
                }
            }
        }
        if !self.slots[index].addr.connected() {
            self.lost_slot(index, now, "its actor is gone");
        } else if handle.fence.finished() && !self.retired {
            // It never leaves by itself: a panic, found long before its beats are missed.
            self.lost_slot(index, now, "its thread is gone");
        } else if self.slots[index].beat.deadlocked() {
            self.convict(index, now);
        }
    }

    fn count(&self, index: usize, beat: Beat) {
        let route = &self.routes[self.slots[index].route].config.name;
        self.metrics.beats(route, beat).inc();
    }

    /// Judges the beat before this Pong's Ping.
    pub(super) fn pong(&mut self, pong: Pong) {
        let limits = Limits {
            stall: self.config.timers.stall,
        };
        let vouchers = self.config.heartbeat.vouchers;
        let slot = &mut self.slots[pong.slot];
        if pong.epoch != slot.epoch || slot.handle.is_none() {
            return;
        }
        let sample = pong.sample;
        slot.witness.observe(&sample);
        let beat = if sample.acked + 1 >= pong.seq {
            Beat::Acked
        } else if vouchers && slot.witness.vouched(&sample, limits).is_some() {
            Beat::Vouched
        } else {
            Beat::Missed
        };
        slot.samples = (slot.samples.1.take(), Some(sample));
        if let Some(beat) = slot.beat.pong(pong.epoch, pong.seq, beat) {
            self.count(pong.slot, beat);
            if self.slots[pong.slot].beat.deadlocked() {
                self.convict(pong.slot, clock::mono());
            }
        }
    }

    /// A part of the slot is gone (a panic, a dead event loop): what is left of its worker is
    /// ended, the slot built anew.
    fn lost_slot(&mut self, index: usize, now: Mono, what: &'static str) {
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
        if self.slots[index].room == self.room.number && self.room.turned.load(SeqCst) < asked {
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
    fn restart(&mut self, index: usize, now: Mono, this: &Addr<Self>) {
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
