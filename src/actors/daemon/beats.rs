//! A slot's beats (S1.2, S1.3): Pings sent, Pongs judged with the vouchers, overdue phases
//! interrupted, the last beats kept for people. What has to be done about a slot that is lost or wedged is `slots` and `verdict`.

use std::collections::VecDeque;

use actix::Addr;
use slog::{debug, trace};

use super::DaemonActor;
use super::slots::Stay;
use crate::actors::messages::{Ping, Pong};
use crate::clock::{self, Mono};
use crate::core::heartbeat::Action;
use crate::core::names::{Beat, Phase};
use crate::core::vouch::Limits;
use crate::core::{stall, timers};
use crate::pulse::WorkerHandle;

/// How long a slot was without a good beat, whichever worker it had.
#[derive(Debug, Clone, Copy)]
pub struct Silences {
    /// When the Ping of the last good beat was sent.
    pub last_good: Mono,
    /// The longest time from one good beat to the next.
    pub longest: Mono,
}

impl Silences {
    /// None so far.
    pub fn new(now: Mono) -> Self {
        Self {
            last_good: now,
            longest: Mono::ZERO,
        }
    }

    /// A good beat, by when its Ping was sent.
    pub fn good(&mut self, at: Mono) {
        self.longest = self.longest.max(at.saturating_sub(self.last_good));
        self.last_good = self.last_good.max(at);
    }
}

/// Beats that are kept of each slot: a minute's worth at the usual interval, and one line on a
/// telephone.
const TRAIL: usize = 30;

/// The last beats of a slot, whichever worker it had. They are only shown; nothing is judged by
/// them.
#[derive(Debug, Clone, Default)]
pub struct Trail(VecDeque<char>);

impl Trail {
    /// A beat that was counted.
    pub fn beat(&mut self, beat: Beat) {
        self.push(match beat {
            Beat::Acked => 'a',
            Beat::Vouched => 'v',
            Beat::Missed => 'm',
        });
    }

    /// The worker was replaced.
    pub fn replaced(&mut self) {
        self.push('x');
    }

    fn push(&mut self, letter: char) {
        if self.0.len() == TRAIL {
            self.0.pop_front();
        }
        self.0.push_back(letter);
    }

    /// Oldest first, as [`crate::report::SlotStatus::beats`] has them.
    pub fn letters(&self) -> String {
        self.0.iter().collect()
    }
}

impl DaemonActor {
    /// One slot's share of a Tick: deadlines, beats, restarts.
    pub(super) fn beat(&mut self, index: usize, scheduled: Mono, now: Mono, this: &Addr<Self>) {
        if self.retired || self.slots[index].stay == Stay::Gone {
            return;
        }
        let Some(handle) = self.slots[index].handle.clone() else {
            if self.slots[index].stay != Stay::Stays {
                self.slot_gone(index);
            } else if now >= self.slots[index].due {
                self.restart(index, now, this);
            }
            return;
        };
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
                    self.count(index, Beat::Missed);
                }
            }
        }
        self.enforce(index, &handle, now);
        self.let_go(index);
        if self.slots[index].stay == Stay::Retired && handle.fence.finished() {
            self.slot_gone(index);
        } else if !self.slots[index].addr.connected() {
            self.lost_slot(index, now, "its actor is gone");
        } else if handle.fence.finished() && !self.retired {
            // It never leaves by itself: a panic, found long before its beats are missed.
            self.lost_slot(index, now, "its thread is gone");
        } else if self.slots[index].beat.deadlocked() {
            self.convict(index, now);
        }
    }

    /// A phase that waits for one event and is over its bound is interrupted: the session goes, the
    /// worker lives on.
    fn enforce(&mut self, index: usize, handle: &WorkerHandle, now: Mono) {
        let slot = &mut self.slots[index];
        let (number, deadline) = handle.deadline();
        // After a suspension the worker, too, has only just come back to look at its event.
        if slot.beat.lenient(now)
            || !timers::overdue(number, deadline, handle.fence.last_interrupt(), now)
        {
            return;
        }
        let sample = handle.look(true);
        let cause = stall::cause(slot.last_good.as_ref(), &sample);
        if sample.phase_number == number {
            slot.overdue = Some((sample.phase, cause));
            if sample.phase == Phase::Quit {
                // No report will tell: whatever the session was for is done.
                let name = &self.routes[slot.route].config.name;
                self.metrics.timeouts(name, Phase::Quit).inc();
            }
        }
        debug!(self.log, "phase over its bound"; "slot" => index, "cause" => cause.as_str(),
            "phase" => sample.phase.as_str(), "next" => "the session is interrupted");
        handle.fence.interrupt(number);
    }

    fn count(&mut self, index: usize, beat: Beat) {
        self.slots[index].trail.beat(beat);
        let route = &self.routes[self.slots[index].route].config.name;
        self.metrics.beats(route, beat).inc();
    }

    /// Judges the beat before this Pong's Ping.
    pub(super) fn pong(&mut self, pong: Pong) {
        let timers = &self.config.timers;
        let limits = Limits {
            stall: timers.stall,
            disk: timers.disk,
            compute: timers.compute,
            beat: self.config.heartbeat.interval,
        };
        let slot = &mut self.slots[pong.slot];
        if pong.epoch != slot.epoch || slot.handle.is_none() {
            return;
        }
        let sample = pong.sample;
        slot.witness.observe(&sample);
        let vouched = || slot.witness.vouched(&self.vouchers, &sample, limits);
        let beat = if sample.acked + 1 >= pong.seq {
            Beat::Acked
        } else if let Some(voucher) = vouched() {
            trace!(self.log, "vouched"; "slot" => pong.slot, "by" => voucher,
                "phase" => sample.phase.as_str(), "next" => "its silence is no miss");
            Beat::Vouched
        } else {
            Beat::Missed
        };
        if beat != Beat::Missed || slot.last_good.is_none() {
            slot.last_good = Some(sample);
        }
        if let Some(beat) = slot.beat.pong(pong.epoch, pong.seq, beat) {
            if beat != Beat::Missed {
                slot.silences.good(slot.beat.last_good());
            }
            self.count(pong.slot, beat);
            if self.slots[pong.slot].beat.deadlocked() {
                self.convict(pong.slot, clock::mono());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_beats_are_kept_and_the_oldest_go() {
        let mut trail = Trail::default();
        assert_eq!(trail.letters(), "");
        trail.beat(Beat::Acked);
        trail.beat(Beat::Vouched);
        trail.beat(Beat::Missed);
        trail.replaced();
        assert_eq!(trail.letters(), "avmx");
        for _ in 0..TRAIL - 1 {
            trail.beat(Beat::Acked);
        }
        assert_eq!(trail.letters(), format!("x{}", "a".repeat(TRAIL - 1)));
    }
}
