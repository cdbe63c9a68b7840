//! The guard of one worker in a command that has no daemon: it sends the beats, judges them as the
//! service does, and interrupts a phase that is over its bound. It never waits and ends nobody by
//! itself: what follows a verdict is the command's.

use std::sync::Arc;

use crate::clock::{self, Mono};
use crate::config::{Config, Heartbeat as Settings, Timers};
use crate::core::evidence::Sample;
use crate::core::heartbeat::{Action, Heartbeat};
use crate::core::names::{Beat, Cause, Phase};
use crate::core::vouch::{Limits, Vouchers, Witness};
use crate::core::{stall, timers};
use crate::pulse::WorkerHandle;

/// The guard.
pub struct Guard {
    handle: Arc<WorkerHandle>,
    beat: Heartbeat,
    witness: Witness,
    vouchers: Vouchers,
    limits: Limits,
    last_good: Option<Sample>,
}

/// A worker without a sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// What it was at.
    pub phase: Phase,
    /// That phase's number.
    pub number: u64,
    /// Why it does not go on.
    pub cause: Cause,
}

impl Guard {
    /// Of a worker that begins now.
    pub fn new(handle: Arc<WorkerHandle>, config: &Config) -> Self {
        let beat = Heartbeat::new(config.heartbeat.policy(), handle.epoch, clock::mono());
        Self {
            beat,
            witness: Witness::default(),
            vouchers: vouchers(&config.heartbeat),
            limits: limits(&config.timers, &config.heartbeat),
            last_good: None,
            handle,
        }
    }

    /// The worker.
    pub fn handle(&self) -> &Arc<WorkerHandle> {
        &self.handle
    }

    /// Does what is due now; called several times in each interval. The verdict stands until the
    /// worker has a good beat.
    pub fn look(&mut self, now: Mono) -> Option<Verdict> {
        match self.beat.tick(now, now) {
            Action::Wait | Action::Unanswered => {}
            Action::Ping { seq } => self.ping(seq),
        }
        let (number, deadline) = self.handle.deadline();
        let last = self.handle.fence.last_interrupt();
        if !self.beat.lenient(now) && timers::overdue(number, deadline, last, now) {
            self.handle.fence.interrupt(number);
        }
        self.beat.deadlocked().then(|| self.verdict())
    }

    /// A Ping, and what its sample says of the beat before.
    fn ping(&mut self, seq: u64) {
        let sample = self.handle.sample(seq);
        self.witness.observe(&sample);
        let vouched = || self.witness.vouched(&self.vouchers, &sample, self.limits);
        let beat = if sample.acked + 1 >= seq {
            Beat::Acked
        } else if vouched().is_some() {
            Beat::Vouched
        } else {
            Beat::Missed
        };
        if beat != Beat::Missed || self.last_good.is_none() {
            self.last_good = Some(sample);
        }
        self.beat.pong(self.handle.epoch, seq, beat);
    }

    fn verdict(&self) -> Verdict {
        let last = self.handle.look(true);
        Verdict {
            phase: last.phase,
            number: last.phase_number,
            cause: stall::cause(self.last_good.as_ref(), &last),
        }
    }
}

fn vouchers(heartbeat: &Settings) -> Vouchers {
    if heartbeat.vouchers {
        Vouchers::all()
    } else {
        Vouchers::none()
    }
}

fn limits(timers: &Timers, heartbeat: &Settings) -> Limits {
    Limits {
        stall: timers.stall,
        disk: timers.disk,
        compute: timers.compute,
        beat: heartbeat.interval,
    }
}
