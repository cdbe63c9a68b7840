//! The two ways in which beats are judged (S4, S5). All times are those of the watch's own clock,
//! which stands still while the guard itself is late; only the window is of real time.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::Mono;
use super::super::names::RestartReason;

/// The judge of a program of one beat (S4): each interval without a beat is a miss, and so is a
/// message that cannot be read. More than `misses` in a row within the window are the fault.
#[derive(Debug, Clone)]
pub struct Beats {
    interval: Duration,
    misses: u32,
    window: Duration,
    due: Option<Mono>,
    /// Misses in a row.
    count: u32,
    /// Those of them that were unreadable messages.
    unreadable: u32,
    /// The real times of the last `misses + 1` of them.
    times: VecDeque<Mono>,
}

impl Beats {
    /// A judge that waits for its `start`.
    pub fn new(interval: Duration, misses: u32, window: Duration) -> Self {
        Self {
            interval,
            misses,
            window,
            due: None,
            count: 0,
            unreadable: 0,
            times: VecDeque::new(),
        }
    }

    /// The program asks for another time without a beat (`WATCHDOG_USEC=`): it is shared out
    /// among the misses, and the window keeps its proportion.
    pub fn allow(&mut self, silence: Duration, judged: Mono) {
        let whole = self.interval.saturating_mul(self.misses + 1);
        let proportion = self.window.as_secs_f64() / whole.as_secs_f64().max(1e-9);
        self.interval = (silence / (self.misses + 1)).max(Duration::from_millis(1));
        self.window = silence.mul_f64(proportion.max(1.0));
        if self.due.is_some() {
            self.beat(judged);
        }
    }

    /// Whether it judges.
    pub fn judges(&self) -> bool {
        self.due.is_some()
    }

    /// A good beat, or the begin of the judgement.
    pub fn beat(&mut self, judged: Mono) {
        self.due = Some(judged + self.interval);
        self.count = 0;
        self.unreadable = 0;
        self.times.clear();
    }

    /// When the next miss is one.
    pub fn due(&self) -> Option<Mono> {
        self.due
    }

    /// A miss; the fault, if it is one too many.
    pub fn miss(&mut self, unreadable: bool, judged: Mono, now: Mono) -> Option<RestartReason> {
        self.due = Some(judged + self.interval);
        self.count += 1;
        self.unreadable += u32::from(unreadable);
        self.times.push_back(now);
        if self.times.len() > self.misses as usize + 1 {
            self.times.pop_front();
        }
        if self.count <= self.misses {
            return None;
        }
        // Only a guard that was late itself needs longer than the window. It gives the program as
        // many misses more, then convicts: a machine that is always late must not hide a wedge.
        let first = self.times.front().copied().unwrap_or(now);
        let within = now.saturating_sub(first) <= self.window;
        if !within && self.count <= self.misses.saturating_mul(2) + 1 {
            return None;
        }
        let garbage = self.unreadable * 2 > self.count;
        Some(if garbage {
            RestartReason::Garbage
        } else {
            RestartReason::Beats
        })
    }
}

/// The judge of one kind of beat of a program that sends two (S5): the `allowed`-th missing one in
/// a row is the fault. A beat is missed half an interval after it was due: one that is a little
/// late in its slot is none.
#[derive(Debug, Clone)]
pub struct Kind {
    interval: Duration,
    allowed: u32,
    last: Mono,
    missed: u32,
}

impl Kind {
    /// A judge whose first beat came, or whose judgement begins, now.
    pub fn new(interval: Duration, allowed: u32, judged: Mono) -> Self {
        Self {
            interval,
            allowed,
            last: judged,
            missed: 0,
        }
    }

    /// A beat.
    pub fn beat(&mut self, judged: Mono) {
        self.last = judged;
        self.missed = 0;
    }

    /// When the next miss is one.
    pub fn due(&self) -> Mono {
        self.last + self.interval.saturating_mul(self.missed + 1) + self.interval / 2
    }

    /// A miss; whether it is the fault.
    pub fn miss(&mut self) -> bool {
        self.missed += 1;
        self.missed >= self.allowed
    }
}
