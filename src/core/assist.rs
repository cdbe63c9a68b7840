//! The two beats of a watched process and who may stand in for one of them (S5): when a pulse is
//! due, when the software beat is, whose word it goes out on, and for how long that word counts.
//! Time comes in as a parameter and nothing is sent here; the one thing that is shared with the
//! loop is a unit's counter of items.
//!
//! Pulses come on a grid whose origin (the *phase*) is the last software beat that the loop gave
//! itself, and a software period is a whole number of them. So a beat that is sent in the loop's
//! place falls where the loop's own would have fallen: not earlier, not more often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Mono;
use super::evidence::Thread;

/// The shortest pulse: a watcher that wants beats faster than twice that cannot be served.
const PULSE_MIN: Mono = Mono::from_millis(50);

/// What was agreed with the watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pulse: Mono,
    /// Pulses in a software period, at least 2.
    pulses: u64,
    bound: Mono,
}

impl Terms {
    /// A software beat each `software`, or twice within what the watcher demands
    /// (`WATCHDOG_USEC`) if that is sooner; a pulse at least each `pulse`, such that a whole
    /// number of them, two or more, makes a software period. Units count for no longer than
    /// `bound` after the loop turned last.
    pub fn new(pulse: Mono, software: Mono, demanded: Option<Mono>, bound: Mono) -> Self {
        let software = demanded.map_or(software, |within| software.min(within / 2));
        let software = software.max(PULSE_MIN * 2);
        let pulse = pulse.max(PULSE_MIN);
        let pulses = software.as_nanos().div_ceil(pulse.as_nanos()).max(2);
        // More of them than that would be settings in centuries.
        let pulses = u32::try_from(pulses).unwrap_or(u32::MAX);
        Self {
            pulse: (software / pulses).max(PULSE_MIN),
            pulses: pulses.into(),
            bound,
        }
    }

    /// Time between two pulses.
    pub fn pulse(&self) -> Mono {
        self.pulse
    }

    /// Time between two software beats.
    pub fn software(&self) -> Mono {
        self.after(self.pulses)
    }

    fn after(&self, ticks: u64) -> Mono {
        Mono::from_nanos(
            u64::try_from(self.pulse.as_nanos())
                .map_or(u64::MAX, |pulse| pulse.saturating_mul(ticks)),
        )
    }
}

/// On whose word a software beat goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The loop went round.
    Loop,
    /// This unit says that the loop is rightly busy.
    Unit(&'static str),
}

/// A software beat that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Software {
    /// On whose word.
    pub by: By,
    at: Mono,
}

/// What is to be done at a tick; a pulse is sent at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// A software beat goes with it.
    pub software: Option<Software>,
    /// The loop is to be asked to go round once.
    pub ask: bool,
    /// The unit whose word counts at this tick.
    pub vouched: Option<&'static str>,
}

/// The schedule of both beats.
#[derive(Debug, Clone)]
pub struct Beats {
    terms: Terms,
    phase: Mono,
    /// The last tick since the phase that was dealt with.
    ticks: u64,
    /// The tick at which the software period is over.
    due: u64,
    /// When the loop went round last.
    turned: Mono,
    /// It did so since the last tick, or for a beat that could not be sent.
    fresh: bool,
    /// It was asked and has not answered.
    asked: bool,
    begun: bool,
}

impl Beats {
    /// Pulses from now on; software beats from [`Beats::begin`] on.
    pub fn new(terms: Terms, now: Mono) -> Self {
        Self {
            terms,
            phase: now,
            ticks: 0,
            due: terms.pulses,
            turned: now,
            fresh: false,
            asked: false,
            begun: false,
        }
    }

    /// The loop runs: its first period begins.
    pub fn begin(&mut self, now: Mono) {
        self.begun = true;
        self.turned = now;
        self.align(now);
    }

    /// Whether it has begun.
    pub fn begun(&self) -> bool {
        self.begun
    }

    fn align(&mut self, phase: Mono) {
        (self.phase, self.ticks, self.due) = (phase, 0, self.terms.pulses);
    }

    /// When the next tick is due.
    pub fn next(&self) -> Mono {
        self.phase + self.terms.after(self.ticks.saturating_add(1))
    }

    /// The tick that is due now, if one is; those that were slept through are gone. `vouching` is
    /// the unit that says yes, if one does.
    pub fn tick(&mut self, now: Mono, vouching: Option<&'static str>) -> Option<Tick> {
        let passed = now.saturating_sub(self.phase).as_nanos() / self.terms.pulse.as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        if passed <= self.ticks {
            return None;
        }
        self.ticks = passed;
        let bounded = now < self.turned + self.terms.bound;
        let vouched = vouching.filter(|_| bounded);
        let over = self.begun && self.ticks >= self.due;
        let by = match (over, self.fresh) {
            (false, _) => None,
            (true, true) => Some(By::Loop),
            (true, false) => vouched.map(By::Unit),
        };
        let at = self.phase + self.terms.after(self.ticks);
        // What it said in the middle of a period is old at its end.
        self.fresh &= over;
        Some(Tick {
            software: by.map(|by| Software { by, at }),
            ask: self.begun && !self.asked,
            vouched,
        })
    }

    /// The loop was asked.
    pub fn asked(&mut self) {
        self.asked = true;
    }

    /// The loop went round; answers the beat that it came too late for and that goes out at once.
    pub fn turned(&mut self, now: Mono) -> Option<Software> {
        (self.asked, self.fresh, self.turned) = (false, true, now);
        let overdue = self.begun && self.ticks >= self.due;
        let by = By::Loop;
        overdue.then_some(Software { by, at: now })
    }

    /// That beat went out. One that did not stays due.
    pub fn sent(&mut self, beat: Software) {
        match beat.by {
            By::Loop => {
                self.fresh = false;
                self.align(beat.at);
            }
            By::Unit(_) => self.due = (self.ticks / self.terms.pulses + 1) * self.terms.pulses,
        }
    }
}

/// A unit's count of what its module has dealt with; cheap, shared with the loop's thread.
#[derive(Debug, Clone, Default)]
pub struct Items(Arc<AtomicU64>);

impl Items {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many so far.
    pub fn so_far(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What the assist units of the service count.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Files found in a spool or in a listing (unit `scan`).
    pub scan: Items,
    /// Steps of the journal's reading and rows taken up from it (unit `journal_recovery`).
    pub journal: Items,
}

impl Counters {
    /// The units that go by them.
    pub fn units(&self) -> Units {
        let mut units = Units::default();
        units.register("scan", self.scan.clone());
        units.register("journal_recovery", self.journal.clone());
        units
    }
}

#[derive(Debug)]
struct Unit {
    id: &'static str,
    items: Items,
    seen: u64,
}

/// The assist units by their ids. A unit says yes when, since it was asked last, the loop's thread
/// was on the CPU and the unit's own module got on. Each of the two alone is a lie: an endless
/// loop burns CPU, and another thread's work says nothing of this one.
#[derive(Debug, Default)]
pub struct Units {
    units: Vec<Unit>,
    cpu_ms: Option<u64>,
}

impl Units {
    /// Registers a unit, which counts its items there.
    pub fn register(&mut self, id: &'static str, items: Items) {
        let seen = items.so_far();
        self.units.push(Unit { id, items, seen });
    }

    /// Another thread is the loop's from now on.
    pub fn another_thread(&mut self) {
        self.cpu_ms = None;
    }

    /// Asks all of them, with what the loop's thread is seen doing now; answers the first that
    /// says yes.
    pub fn ask(&mut self, thread: Option<Thread>) -> Option<&'static str> {
        let on_cpu = thread.is_some_and(|now| {
            let before = self.cpu_ms.replace(now.cpu_ms);
            now.state == 'R' || before.is_some_and(|before| now.cpu_ms > before)
        });
        let mut yes = None;
        for unit in &mut self.units {
            let items = unit.items.so_far();
            if std::mem::replace(&mut unit.seen, items) != items && on_cpu {
                yes = yes.or(Some(unit.id));
            }
        }
        yes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::evidence::Call;

    const MS: fn(u64) -> Mono = Mono::from_millis;
    const YES: Option<&str> = Some("scan");

    fn two_and_ten() -> Terms {
        Terms::new(MS(2_000), MS(10_000), None, MS(60_000))
    }

    fn begun() -> Beats {
        let mut beats = Beats::new(two_and_ten(), MS(0));
        beats.begin(MS(0));
        beats
    }

    #[test]
    fn the_watchers_demand_makes_both_beats_faster_and_a_period_is_a_whole_number_of_pulses() {
        let terms = |pulse, software, demanded: Option<u64>| {
            let terms = Terms::new(MS(pulse), MS(software), demanded.map(MS), MS(1));
            (
                terms.pulse().as_millis() as u64,
                terms.software().as_millis() as u64,
            )
        };
        assert_eq!(terms(2_000, 10_000, None), (2_000, 10_000));
        assert_eq!(terms(2_000, 10_000, Some(60_000)), (2_000, 10_000));
        assert_eq!(terms(2_000, 10_000, Some(12_000)), (2_000, 6_000));
        assert_eq!(terms(2_000, 10_000, Some(3_000)), (750, 1_500));
        assert_eq!(terms(3_000, 10_000, None), (2_500, 10_000), "never slower");
        assert_eq!(terms(2_000, 10_000, Some(1)), (50, 100), "the fastest");
    }

    #[test]
    fn a_loop_that_turns_gives_each_beat_itself_and_on_time() {
        let mut beats = begun();
        let mut sent = Vec::new();
        for second in 1..=40 {
            if let Some(tick) = beats.tick(MS(second * 1_000), None) {
                if let Some(beat) = tick.software {
                    assert_eq!(beat.by, By::Loop);
                    beats.sent(beat);
                    sent.push(second);
                }
                assert!(tick.ask);
                beats.asked();
                assert_eq!(
                    beats.turned(MS(second * 1_000 + 1)),
                    None,
                    "none is overdue"
                );
            }
        }
        assert_eq!(sent, [10, 20, 30, 40]);
    }

    #[test]
    fn a_late_answer_sends_the_overdue_beat_at_once_and_moves_the_phase() {
        let mut beats = begun();
        for second in [2, 4, 6, 8, 10, 12] {
            assert_eq!(beats.tick(MS(second * 1_000), None).unwrap().software, None);
        }
        let late = beats.turned(MS(13_500)).unwrap();
        assert_eq!(late.by, By::Loop);
        beats.sent(late);
        assert_eq!(beats.next(), MS(15_500));
        let mut at = beats.next();
        loop {
            if let Some(beat) = beats.tick(at, YES).unwrap().software {
                assert_eq!((beat.by, at), (By::Unit("scan"), MS(23_500)));
                break;
            }
            at = beats.next();
        }
    }

    #[test]
    fn a_unit_says_yes_only_for_a_thread_on_the_cpu_whose_module_gets_on() {
        let mut units = Units::default();
        let (scan, journal) = (Items::default(), Items::default());
        units.register("scan", scan.clone());
        units.register("journal_recovery", journal.clone());
        let seen = |state, cpu_ms| {
            Some(Thread {
                state,
                call: Call::None,
                cpu_ms,
            })
        };
        assert_eq!(units.ask(seen('R', 10)), None, "nothing got on");
        journal.count();
        assert_eq!(units.ask(seen('R', 10)), Some("journal_recovery"));
        assert_eq!(units.ask(seen('R', 20)), None, "that was counted already");
        scan.count();
        assert_eq!(units.ask(seen('S', 20)), None, "it waits");
        scan.count();
        assert_eq!(units.ask(seen('S', 21)), Some("scan"), "it ran meanwhile");
        scan.count();
        units.another_thread();
        assert_eq!(units.ask(seen('S', 30)), None, "of another thread");
        scan.count();
        assert_eq!(units.ask(None), None, "the thread is gone");
    }

    /// What happens between two looks at the clock.
    #[derive(Debug, Clone)]
    struct Step {
        pause: u64,
        vouching: bool,
        answers: bool,
        /// The watcher's queue takes what is sent.
        goes_out: bool,
    }

    fn steps(pause: std::ops::Range<u64>) -> impl Strategy<Value = Vec<Step>> {
        let step = (
            pause,
            any::<bool>(),
            prop::bool::weighted(0.3),
            prop::bool::weighted(0.9),
        );
        let step = step.prop_map(|(pause, vouching, answers, goes_out)| Step {
            pause,
            vouching,
            answers,
            goes_out,
        });
        prop::collection::vec(step, 1..200)
    }

    fn terms() -> impl Strategy<Value = Terms> {
        let times = (100u64..3_000, 200u64..12_000, 1_000u64..60_000);
        (times, prop::option::of(1_000u64..20_000)).prop_map(|((p, s, bound), demanded)| {
            Terms::new(MS(p), MS(s), demanded.map(MS), MS(bound))
        })
    }

    /// A software beat that went out: when, on whose word, and its place on the grid.
    #[derive(Debug, Clone, Copy)]
    struct Out {
        now: Mono,
        by: By,
        phase: Mono,
        period: u64,
    }

    /// Lives through it; tells what was sent, and checks each beat against what is known then.
    fn live(terms: Terms, steps: &[Step]) -> Result<Vec<Out>, TestCaseError> {
        let mut beats = Beats::new(terms, MS(0));
        beats.begin(MS(0));
        let (mut now, mut turned, mut answered) = (MS(0), MS(0), false);
        let mut out: Vec<Out> = Vec::new();
        for step in steps {
            now += MS(step.pause);
            let mut due = None;
            if step.answers && beats.asked {
                (turned, answered) = (now, true);
                due = beats.turned(now);
            }
            let vouching = step.vouching.then_some("scan");
            let due = due.or_else(|| {
                let tick = beats.tick(now, vouching)?;
                if tick.ask {
                    beats.asked();
                }
                tick.software
            });
            prop_assert!(beats.next() > now || due.is_some(), "a burst of pulses");
            let Some(beat) = due.filter(|_| step.goes_out) else {
                continue;
            };
            match beat.by {
                By::Loop => prop_assert!(answered, "for a loop that did not answer"),
                By::Unit(_) => prop_assert!(step.vouching && now < turned + terms.bound),
            }
            answered = false;
            let (phase, period) = (beats.phase, beats.ticks / terms.pulses);
            out.push(Out {
                now,
                by: beat.by,
                phase,
                period,
            });
            beats.sent(beat);
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn whatever_happens_no_beat_lacks_a_word_and_no_period_has_two(
            terms in terms(),
            steps in steps(1..5_000),
        ) {
            let out = live(terms, &steps)?;
            for pair in out.windows(2) {
                let (one, next) = (pair[0], pair[1]);
                prop_assert!(next.now > one.now);
                let same = one.phase == next.phase && matches!(one.by, By::Unit(_));
                prop_assert!(!same || next.period > one.period, "{:?} {:?}", one, next);
            }
        }

        /// Of a wedged loop nobody speaks for, not one beat is sent, however long it lasts.
        #[test]
        fn a_wedged_loop_that_nobody_vouches_for_sends_nothing(
            terms in terms(),
            mut steps in steps(1..5_000),
        ) {
            steps.iter_mut().for_each(|s| (s.vouching, s.answers) = (false, false));
            prop_assert!(live(terms, &steps)?.is_empty());
        }

        /// On time, on the phase of the last own beat, and up to the bound.
        #[test]
        fn a_vouched_loop_misses_no_beat_before_the_bound_and_sends_none_after_it(
            terms in terms(),
            own in 0u64..5,
            // How late each tick is dealt with, in shares of a pulse.
            late in prop::collection::vec(0.0..0.4f64, 400),
        ) {
            let mut beats = Beats::new(terms, MS(7));
            beats.begin(MS(7));
            let (mut turned, mut last, mut given) = (MS(7), MS(7), 0);
            for late in late {
                let scheduled = beats.next();
                let now = scheduled + terms.pulse.mul_f64(late);
                let tick = beats.tick(now, YES).unwrap();
                let period_over = scheduled >= last + terms.software();
                let within = now < turned + terms.bound;
                match tick.software {
                    None => prop_assert!(!period_over || !within),
                    Some(beat) => {
                        prop_assert!(period_over);
                        prop_assert!(beat.by == By::Loop || within);
                        given += u64::from(beat.by == By::Loop);
                        beats.sent(beat);
                        prop_assert_eq!(scheduled, last + terms.software(), "in phase");
                        last = scheduled;
                    }
                }
                if given < own {
                    beats.asked();
                    turned = now + MS(1);
                    if let Some(beat) = beats.turned(turned) {
                        given += 1;
                        last = turned;
                        beats.sent(beat);
                    }
                }
            }
        }

        /// A machine that was suspended: one tick, whatever was slept through.
        #[test]
        fn a_late_tick_is_one(terms in terms(), asleep in 1u64..10_000_000) {
            let mut beats = Beats::new(terms, MS(0));
            beats.begin(MS(0));
            let now = beats.next() + MS(asleep);
            prop_assert!(beats.tick(now, YES).is_some());
            prop_assert_eq!(beats.tick(now, YES), None);
            prop_assert!(beats.next() > now && beats.next() <= now + terms.pulse);
        }
    }
}
