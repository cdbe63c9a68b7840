//! What the guard of one program decides (S4, S5; sd_notify(3)): when it is killed and why, when it
//! is started again, when the guard itself ends. Pure: the guard tells what happened and when, and
//! does what it is answered. One event has one answer at most.
//!
//! Beats and the start are judged by a clock of their own, which stands still while the guard is
//! late: each wake-up counts one miss at most, however long the guard was suspended or starved. The
//! guard reads what was sent before it tells a `Tick`; where strangers flood it, a bounded part.

mod judge;
mod words;

use std::time::Duration;

use self::judge::{Beats, Kind};
pub use self::words::{Action, Event, Exit, Said, Terms};
use super::Mono;
use super::names::RestartReason;
use super::restart::Gate;

/// A life that was ready and lasted for so long is followed by the next one at once.
pub const GOOD_LIFE: Duration = Duration::from_secs(2);
/// A killed program that is still there after this time raises the alarm.
pub const UNKILLABLE: Duration = Duration::from_secs(5);
/// The longest pause between two such alarms.
pub const ALARM_PAUSE: Duration = Duration::from_secs(600);
/// How long the end may take after a second stop signal.
pub const SECOND_STOP: Duration = Duration::from_secs(1);
/// The longest time that a program may ask for by one `EXTEND_TIMEOUT_USEC`.
pub const EXTENSION: Duration = Duration::from_secs(3600);

#[derive(Debug)]
enum State {
    /// No program runs; it is started then.
    Idle(Mono),
    Life(Box<Life>),
    Over,
}

#[derive(Debug)]
struct Life {
    ready: bool,
    /// When it has to be ready; on the judged clock.
    start_by: Mono,
    beats: Beats,
    pulse: Option<Kind>,
    software: Option<Kind>,
    /// When its end has to be over; in real time.
    end_by: Option<Mono>,
    /// A second stop was asked for: no more time is given.
    at_once: bool,
    killed: Option<Killed>,
}

#[derive(Debug)]
struct Killed {
    reason: RestartReason,
    at: Mono,
    alarm: Mono,
    pause: Duration,
}

/// Who misses a judged deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Pulse,
    Start,
    Software,
    Beats,
}

/// The state of one watched program.
#[derive(Debug)]
pub struct Watch {
    terms: Terms,
    gate: Gate,
    state: State,
    /// By how much the judged clock is behind.
    excused: Duration,
    stopping: bool,
    /// How the last life ended.
    last: u8,
    lives: u64,
}

impl Watch {
    /// A watch whose program is to be started now.
    pub fn new(terms: Terms, now: Mono) -> Self {
        Self {
            terms,
            gate: Gate::new(GOOD_LIFE, now),
            state: State::Idle(now),
            excused: Duration::ZERO,
            stopping: false,
            last: 0,
            lives: 0,
        }
    }

    /// How often the program was started.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// Whether the program said that it is ready, in this life.
    pub fn ready(&self) -> bool {
        matches!(&self.state, State::Life(life) if life.ready)
    }

    /// Whether its silence counts: it runs, and nobody ends it.
    pub fn judges(&self) -> bool {
        matches!(&self.state, State::Life(life) if life.is_judged())
    }

    /// Whether the program was killed and has not ended yet.
    pub fn killed(&self) -> bool {
        matches!(&self.state, State::Life(life) if life.killed.is_some())
    }

    /// Whether it sends two kinds of beat.
    pub fn two_beats(&self) -> bool {
        matches!(&self.state, State::Life(life) if life.pulse.is_some())
    }

    /// When the next `Tick` is due; none: only another event changes anything.
    pub fn next_deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Idle(at) => Some(*at),
            State::Over => None,
            State::Life(life) => match (&life.killed, life.end_by) {
                (Some(killed), _) => Some(killed.alarm),
                (None, Some(by)) => Some(by),
                (None, None) => life.next().map(|(due, _)| due + self.excused),
            },
        }
    }

    /// Tells what happened; what has to be done about it.
    pub fn on(&mut self, event: Event, now: Mono) -> Option<Action> {
        match event {
            Event::Started => {
                self.started(now);
                None
            }
            Event::NotStarted { for_good } => {
                let first = self.lives == 0;
                self.started(now);
                // A command that worked once may be back in a moment: an upgrade is under way.
                match first && for_good {
                    true => self.over(2),
                    false => self.exited(Exit::Unknown, now),
                }
            }
            Event::Said(said) => self.said(said, now),
            Event::Garbage => self.garbage(now),
            Event::Exited(exit) => self.exited(exit, now),
            Event::StopRequested => self.stop(now),
            Event::Tick => self.tick(now),
        }
    }

    fn judged(&self, now: Mono) -> Mono {
        now.saturating_sub(self.excused)
    }

    fn started(&mut self, now: Mono) {
        self.gate.began(now);
        self.lives += 1;
        let terms = &self.terms;
        self.state = State::Life(Box::new(Life {
            ready: false,
            start_by: self.judged(now) + terms.start_timeout,
            beats: Beats::new(terms.interval, terms.misses, terms.window),
            pulse: None,
            software: None,
            end_by: None,
            at_once: false,
            killed: None,
        }));
    }

    fn said(&mut self, said: Said, now: Mono) -> Option<Action> {
        let judged = self.judged(now);
        let (terms, State::Life(life)) = (self.terms, &mut self.state) else {
            return None;
        };
        if life.killed.is_some() {
            return None;
        }
        if let Some(by) = &mut life.end_by {
            if let Some(more) = said.extend.filter(|_| !life.at_once) {
                *by = (*by).max(now + more.min(EXTENSION));
            }
            return None;
        }
        if said.stopping {
            life.end_by = Some(
                now + terms
                    .stop_bound
                    .max(said.extend.unwrap_or_default().min(EXTENSION)),
            );
            return None;
        }
        if said.trigger {
            let reason = match life.pulse {
                Some(_) => RestartReason::NoSoftwareBeat,
                None => RestartReason::Beats,
            };
            return Some(life.kill(reason, now));
        }
        if let Some(silence) = said.silence {
            life.beats.allow(silence, judged);
        }
        if said.pulse {
            match &mut life.pulse {
                Some(pulse) => pulse.beat(judged),
                none => *none = Some(Kind::new(terms.pulse_interval, terms.kind_misses, judged)),
            }
        }
        let two_beats = life.pulse.is_some();
        let becomes_ready = !life.ready && (said.ready || said.beat && !two_beats);
        life.ready |= becomes_ready;
        if !life.ready {
            if let Some(more) = said.extend {
                life.start_by = life.start_by.max(judged + more.min(EXTENSION));
            }
        } else if two_beats {
            match &mut life.software {
                Some(software) if said.beat => software.beat(judged),
                Some(_) => {}
                none => {
                    *none = Some(Kind::new(
                        terms.software_interval,
                        terms.kind_misses,
                        judged,
                    ))
                }
            }
        } else if said.beat || terms.required && !life.beats.judges() {
            life.beats.beat(judged);
        }
        becomes_ready.then_some(Action::Ready)
    }

    fn garbage(&mut self, now: Mono) -> Option<Action> {
        let judged = self.judged(now);
        let State::Life(life) = &mut self.state else {
            return None;
        };
        let judges = life.is_judged() && life.pulse.is_none() && life.beats.judges();
        if !judges {
            return None;
        }
        let reason = life.beats.miss(true, judged, now)?;
        Some(life.kill(reason, now))
    }

    fn exited(&mut self, exit: Exit, now: Mono) -> Option<Action> {
        let State::Life(life) = &self.state else {
            return None;
        };
        let (ready, killed) = (life.ready, life.killed.as_ref().map(|killed| killed.reason));
        self.last = exit.code();
        let wrong_settings = exit == Exit::Code(2) && !ready && killed.is_none();
        if self.stopping || exit == Exit::Code(0) || wrong_settings {
            return self.over(self.last);
        }
        let at = self.gate.ended_as(ready, now);
        self.state = State::Idle(at);
        let reason = killed.unwrap_or(RestartReason::Exit);
        Some(Action::Restart { reason, at })
    }

    fn over(&mut self, code: u8) -> Option<Action> {
        self.state = State::Over;
        Some(Action::End(code))
    }

    fn stop(&mut self, now: Mono) -> Option<Action> {
        let again = std::mem::replace(&mut self.stopping, true);
        match &mut self.state {
            State::Over => None,
            State::Idle(_) => self.over(self.last),
            State::Life(life) => {
                life.at_once = again;
                life.end_by = match life.end_by {
                    Some(by) if again => Some(by.min(now + SECOND_STOP)),
                    _ => Some(now + self.terms.stop_bound),
                };
                None
            }
        }
    }

    fn tick(&mut self, now: Mono) -> Option<Action> {
        let judged = self.judged(now);
        let life = match &mut self.state {
            State::Over => return None,
            State::Idle(at) => return (now >= *at).then_some(Action::Start),
            State::Life(life) => life,
        };
        if let Some(killed) = &mut life.killed {
            return killed.alarm(now);
        }
        if let Some(by) = life.end_by {
            return (now >= by).then(|| life.kill(RestartReason::Exit, now));
        }
        let (due, who) = life.next()?;
        if judged < due {
            return None;
        }
        // The guard's own lateness is nobody's fault: this wake-up is the deadline.
        self.excused += judged - due;
        let fault = match who {
            Late::Start => Some(RestartReason::NotReady),
            Late::Pulse => {
                let fault = life.pulse.as_mut().is_some_and(Kind::miss);
                fault.then_some(RestartReason::NoPulse)
            }
            Late::Software => {
                let fault = life.software.as_mut().is_some_and(Kind::miss);
                fault.then_some(RestartReason::NoSoftwareBeat)
            }
            Late::Beats => life.beats.miss(false, due, now),
        };
        Some(life.kill(fault?, now))
    }
}

impl Life {
    fn is_judged(&self) -> bool {
        self.killed.is_none() && self.end_by.is_none()
    }

    /// The next deadline on the judged clock, and whose it is.
    fn next(&self) -> Option<(Mono, Late)> {
        let start = (!self.ready).then_some((self.start_by, Late::Start));
        let pulse = self.pulse.as_ref().map(|kind| (kind.due(), Late::Pulse));
        let software = self.software.as_ref();
        let software = software.map(|kind| (kind.due(), Late::Software));
        let beats = self.beats.due().filter(|_| self.pulse.is_none());
        let beats = beats.map(|due| (due, Late::Beats));
        // The first of equals: a program without pulse is frozen, whatever else it owes.
        let all = [pulse, start, software, beats].into_iter().flatten();
        all.min_by_key(|(due, _)| *due)
    }

    fn kill(&mut self, reason: RestartReason, now: Mono) -> Action {
        self.killed = Some(Killed {
            reason,
            at: now,
            alarm: now + UNKILLABLE,
            pause: UNKILLABLE,
        });
        Action::Kill(reason)
    }
}

impl Killed {
    fn alarm(&mut self, now: Mono) -> Option<Action> {
        if now < self.alarm {
            return None;
        }
        self.pause = (self.pause * 2).min(ALARM_PAUSE);
        self.alarm = now + self.pause;
        Some(Action::Alarm {
            since: now.saturating_sub(self.at),
        })
    }
}

#[cfg(test)]
mod tests;
