//! The guard's decisions: every rule by example, and random histories against models that count
//! millisecond by millisecond.

use super::*;
use proptest::prelude::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const TERMS: Terms = Terms {
    interval: ms(500),
    misses: 5,
    window: ms(3000),
    required: true,
    start_timeout: ms(30_000),
    pulse_interval: ms(2000),
    software_interval: ms(10_000),
    kind_misses: 3,
    stop_bound: ms(9500),
};

const READY: Said = Said {
    ready: true,
    ..SILENT
};
const BEAT: Said = Said {
    beat: true,
    ..SILENT
};
const PULSE: Said = Said {
    pulse: true,
    ..SILENT
};
const SILENT: Said = Said {
    beat: false,
    pulse: false,
    ready: false,
    stopping: false,
    trigger: false,
    extend: None,
    silence: None,
};

/// A guard that is never late, and what it was told to do.
struct Bench {
    watch: Watch,
    now: Mono,
    done: Vec<(Mono, Action)>,
}

impl Bench {
    fn new(terms: Terms) -> Self {
        let mut bench = Self {
            watch: Watch::new(terms, Mono::ZERO),
            now: Mono::ZERO,
            done: Vec::new(),
        };
        bench.to(Mono::ZERO);
        bench
    }

    fn with(terms: Terms, said: Said) -> Self {
        let mut bench = Self::new(terms);
        bench.says(said);
        bench
    }

    fn take(&mut self, answer: Option<Action>) {
        let Some(action) = answer else { return };
        self.done.push((self.now, action));
        if action == Action::Start {
            let answer = self.watch.on(Event::Started, self.now);
            assert_eq!(answer, None);
        }
    }

    /// Lets time pass up to `end`; what is due before or then is done.
    fn to(&mut self, end: Mono) {
        while let Some(due) = self.watch.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let answer = self.watch.on(Event::Tick, self.now);
            self.take(answer);
        }
        self.now = end;
    }

    fn pass(&mut self, more: Duration) {
        self.to(self.now + more);
    }

    fn on(&mut self, event: Event) -> Option<Action> {
        let answer = self.watch.on(event, self.now);
        self.take(answer);
        answer
    }

    fn says(&mut self, said: Said) -> Option<Action> {
        self.on(Event::Said(said))
    }

    fn killed(&self) -> Option<(Mono, RestartReason)> {
        self.done.iter().find_map(|(at, action)| match action {
            Action::Kill(reason) => Some((*at, *reason)),
            _ => None,
        })
    }

    fn starts(&self) -> Vec<Mono> {
        let starts = self.done.iter().filter(|(_, a)| *a == Action::Start);
        starts.map(|(at, _)| *at).collect()
    }
}

#[test]
fn the_sixth_beat_that_does_not_come_is_the_fault() {
    let mut bench = Bench::with(TERMS, READY);
    bench.to(ms(2999));
    assert_eq!(bench.killed(), None);
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(3000), RestartReason::Beats)));
}

#[test]
fn the_sixth_unreadable_message_in_a_row_is_the_fault_and_a_good_beat_forgives() {
    let mut bench = Bench::with(TERMS, BEAT);
    assert_eq!(bench.done.last(), Some(&(ms(0), Action::Ready)));
    for _ in 0..5 {
        bench.pass(ms(100));
        assert_eq!(bench.on(Event::Garbage), None);
    }
    bench.says(BEAT);
    for _ in 0..5 {
        bench.pass(ms(100));
        assert_eq!(bench.on(Event::Garbage), None);
    }
    bench.pass(ms(100));
    let verdict = bench.on(Event::Garbage);
    assert_eq!(verdict, Some(Action::Kill(RestartReason::Garbage)));
    // Nothing of a killed process counts any more.
    assert_eq!(bench.says(BEAT), None);
    assert_eq!(bench.on(Event::Garbage), None);
}

#[test]
fn mostly_missing_beats_are_called_missing() {
    let mut bench = Bench::with(TERMS, BEAT);
    for _ in 0..3 {
        bench.pass(ms(100));
        bench.on(Event::Garbage);
    }
    bench.to(ms(60_000));
    assert_eq!(bench.killed().unwrap().1, RestartReason::Beats);
}

#[test]
fn a_client_of_systemd_beats_at_half_of_what_it_was_told() {
    let mut bench = Bench::with(TERMS, READY);
    for _ in 0..100 {
        bench.pass(TERMS.interval * (TERMS.misses + 1) / 2);
        bench.says(BEAT);
    }
    assert_eq!(bench.killed(), None);
}

#[test]
fn beats_may_be_asked_for_only_once_they_came() {
    let terms = Terms {
        required: false,
        ..TERMS
    };
    let mut bench = Bench::with(terms, READY);
    bench.pass(ms(600_000));
    assert_eq!(bench.on(Event::Garbage), None);
    assert_eq!(bench.watch.next_deadline(), None);
    bench.says(BEAT);
    bench.pass(ms(600_000));
    assert_eq!(bench.killed(), Some((ms(603_000), RestartReason::Beats)));
}

#[test]
fn another_silence_is_shared_out_among_the_misses() {
    let mut bench = Bench::with(TERMS, READY);
    let silence = Some(ms(60_000));
    bench.says(Said { silence, ..SILENT });
    bench.to(ms(59_999));
    assert_eq!(bench.killed(), None);
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(60_000), RestartReason::Beats)));
}

#[test]
fn a_start_has_a_bound_that_can_be_extended_by_messages_that_go_on() {
    let mut bench = Bench::new(TERMS);
    bench.to(ms(29_999));
    let extend = Some(ms(5000));
    bench.says(Said { extend, ..SILENT });
    bench.to(ms(34_000));
    bench.says(Said { extend, ..SILENT });
    bench.to(ms(38_999));
    assert_eq!(bench.killed(), None);
    bench.to(ms(39_000));
    assert_eq!(bench.killed(), Some((ms(39_000), RestartReason::NotReady)));
    // An extension never makes it shorter.
    let mut bench = Bench::new(TERMS);
    bench.says(Said { extend, ..SILENT });
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(30_000), RestartReason::NotReady)));
}

#[test]
fn two_kinds_of_beat_are_judged_one_by_one() {
    // Frozen: neither comes.
    let both = Said {
        pulse: true,
        ready: true,
        ..SILENT
    };
    let mut bench = Bench::with(TERMS, both);
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(7000), RestartReason::NoPulse)));
    // Wedged: the pulse goes on.
    let mut bench = Bench::with(TERMS, both);
    while bench.killed().is_none() {
        bench.pass(ms(2000));
        bench.says(PULSE);
    }
    let wedged = Some((ms(35_000), RestartReason::NoSoftwareBeat));
    assert_eq!(bench.killed(), wedged);
    // Both come, each a little late: no fault.
    let mut bench = Bench::with(TERMS, both);
    for n in 1..1000_u32 {
        bench.pass(ms(2900));
        bench.says(Said {
            beat: n % 4 == 0,
            ..PULSE
        });
    }
    assert_eq!(bench.killed(), None);
}

#[test]
fn a_pulse_is_judged_before_the_program_is_ready_and_a_software_beat_is_not() {
    let mut bench = Bench::with(TERMS, PULSE);
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(7000), RestartReason::NoPulse)));
    let mut bench = Bench::with(TERMS, PULSE);
    bench.says(BEAT);
    assert!(
        !bench.watch.ready(),
        "READY=1 is asked of a program of two beats"
    );
    while bench.killed().is_none() {
        bench.pass(ms(2000));
        bench.says(PULSE);
    }
    assert_eq!(bench.killed(), Some((ms(30_000), RestartReason::NotReady)));
}

#[test]
fn a_trigger_kills_at_once() {
    let trigger = Said {
        trigger: true,
        ..SILENT
    };
    let mut bench = Bench::with(TERMS, READY);
    assert_eq!(
        bench.says(trigger),
        Some(Action::Kill(RestartReason::Beats))
    );
    let mut bench = Bench::with(TERMS, PULSE);
    let verdict = Some(Action::Kill(RestartReason::NoSoftwareBeat));
    assert_eq!(bench.says(trigger), verdict);
}

#[test]
fn exit_codes_end_or_restart() {
    let exit = |bench: &mut Bench, exit| bench.on(Event::Exited(exit));
    let restart = |at| {
        let reason = RestartReason::Exit;
        Some(Action::Restart { reason, at })
    };
    assert_eq!(
        exit(&mut Bench::new(TERMS), Exit::Code(0)),
        Some(Action::End(0))
    );
    assert_eq!(
        exit(&mut Bench::new(TERMS), Exit::Code(2)),
        Some(Action::End(2))
    );
    let mut ready = Bench::with(TERMS, READY);
    ready.to(ms(2500));
    assert_eq!(exit(&mut ready, Exit::Code(2)), restart(ms(2500)));
    let mut good = Bench::with(TERMS, READY);
    good.to(ms(2000));
    assert_eq!(exit(&mut good, Exit::Signal(9)), restart(ms(2000)));
    // Ready, but it died at once; and one that lived, but was never ready.
    let mut young = Bench::with(TERMS, READY);
    young.to(ms(1000));
    assert_eq!(exit(&mut young, Exit::Code(3)), restart(ms(1100)));
    let mut never = Bench::new(TERMS);
    never.to(ms(20_000));
    assert_eq!(exit(&mut never, Exit::Code(3)), restart(ms(20_100)));
    // Killed, but it was quicker.
    let mut done = Bench::with(TERMS, READY);
    done.to(ms(3000));
    assert!(done.watch.killed());
    assert_eq!(exit(&mut done, Exit::Code(0)), Some(Action::End(0)));
    // A killed one that was not ready has no wrong settings.
    let mut slow = Bench::new(TERMS);
    slow.to(ms(30_000));
    let reason = RestartReason::NotReady;
    let at = ms(30_100);
    assert_eq!(
        exit(&mut slow, Exit::Code(2)),
        Some(Action::Restart { reason, at })
    );
}

#[test]
fn a_command_that_cannot_be_started_ends_with_2_unless_it_worked_before() {
    let failed = |for_good| Event::NotStarted { for_good };
    let mut watch = Watch::new(TERMS, ms(0));
    assert_eq!(watch.on(Event::Tick, ms(0)), Some(Action::Start));
    assert_eq!(watch.on(failed(true), ms(0)), Some(Action::End(2)));
    let mut watch = Watch::new(TERMS, ms(0));
    let (reason, at) = (RestartReason::Exit, ms(100));
    assert_eq!(
        watch.on(failed(false), ms(0)),
        Some(Action::Restart { reason, at })
    );
    let mut bench = Bench::with(TERMS, READY);
    bench.to(ms(2000));
    bench.on(Event::Exited(Exit::Code(1)));
    assert_eq!(bench.watch.on(Event::Tick, ms(2000)), Some(Action::Start));
    let at = ms(2100);
    assert_eq!(bench.on(failed(true)), Some(Action::Restart { reason, at }));
}

#[test]
fn a_stop_is_bounded_and_a_second_one_is_short() {
    let mut bench = Bench::with(TERMS, READY);
    assert_eq!(bench.on(Event::StopRequested), None);
    bench.to(ms(9499));
    assert_eq!(bench.killed(), None, "silence is no fault while it ends");
    bench.to(ms(9500));
    assert_eq!(bench.killed(), Some((ms(9500), RestartReason::Exit)));
    assert_eq!(
        bench.on(Event::Exited(Exit::Signal(9))),
        Some(Action::End(137))
    );

    let mut bench = Bench::with(TERMS, READY);
    bench.on(Event::StopRequested);
    bench.to(ms(100));
    bench.on(Event::StopRequested);
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(1100), RestartReason::Exit)));

    let mut bench = Bench::with(TERMS, READY);
    bench.on(Event::StopRequested);
    let extend = Some(ms(20_000));
    bench.says(Said { extend, ..SILENT });
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(20_000), RestartReason::Exit)));

    let mut bench = Bench::new(TERMS);
    bench.on(Event::StopRequested);
    assert_eq!(bench.on(Event::Exited(Exit::Code(0))), Some(Action::End(0)));
    // Between two lives: the code of the last one.
    let mut bench = Bench::new(TERMS);
    bench.on(Event::Exited(Exit::Code(3)));
    assert_eq!(bench.on(Event::StopRequested), Some(Action::End(3)));
    assert_eq!(bench.watch.next_deadline(), None);
}

#[test]
fn a_program_that_stops_by_itself_is_bounded_and_started_again_unless_it_ends_with_0() {
    let stopping = Said {
        stopping: true,
        ..SILENT
    };
    let mut bench = Bench::with(TERMS, READY);
    bench.says(stopping);
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(9500), RestartReason::Exit)));
    let mut bench = Bench::with(TERMS, READY);
    bench.says(stopping);
    bench.to(ms(5000));
    let (reason, at) = (RestartReason::Exit, ms(5000));
    let answer = bench.on(Event::Exited(Exit::Code(70)));
    assert_eq!(answer, Some(Action::Restart { reason, at }));
}

#[test]
fn what_cannot_be_killed_raises_alarms_further_and_further_apart_and_no_second_copy() {
    let mut bench = Bench::with(TERMS, READY);
    bench.to(ms(3_600_000));
    let alarms = bench.done.iter().filter_map(|(at, action)| match action {
        Action::Alarm { since } => {
            assert_eq!(*at, ms(3000) + *since);
            Some(since.as_secs())
        }
        _ => None,
    });
    let alarms: Vec<u64> = alarms.collect();
    assert_eq!(alarms[..8], [5, 15, 35, 75, 155, 315, 635, 1235]);
    assert_eq!(alarms[8..10], [1835, 2435]);
    assert_eq!(bench.starts().len(), 1);
    bench.on(Event::Exited(Exit::Signal(9)));
    bench.pass(ms(0));
    assert_eq!(bench.starts().len(), 2);
}

#[test]
fn a_guard_that_slept_for_an_hour_does_not_convict_when_it_wakes() {
    let hour = ms(3_600_000);
    for said in [
        READY,
        Said {
            pulse: true,
            ..READY
        },
    ] {
        let mut bench = Bench::with(TERMS, said);
        bench.pass(ms(100));
        assert_eq!(bench.watch.on(Event::Tick, hour), None);
        assert!(bench.watch.next_deadline().unwrap() > hour);
        // But the program is judged from then on.
        bench.now = hour;
        bench.pass(ms(7000));
        assert!(bench.killed().is_some());
    }
    let mut bench = Bench::new(TERMS);
    assert_eq!(bench.watch.on(Event::Tick, ms(29_000)), None);
    // A start that is overdue when the guard wakes up had its time.
    assert_eq!(
        bench.watch.on(Event::Tick, hour),
        Some(Action::Kill(RestartReason::NotReady))
    );
}

/// What may happen in a random history.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Beat,
    Garbage,
}

proptest! {
    /// One beat: the verdict comes at the very millisecond of a count by hand, or not at all.
    #[test]
    fn a_program_of_one_beat_is_convicted_exactly_when_it_should_be(
        steps in prop::collection::vec((0..1300_u64, prop_oneof![
            3 => Just(Happens::Beat), 1 => Just(Happens::Garbage)]), 0..60),
        misses in 1..7_u32,
    ) {
        let interval = 500;
        let window = ms(interval * u64::from(misses + 1));
        let mut bench = Bench::with(Terms { misses, window, ..TERMS }, BEAT);
        let mut events = std::collections::BTreeMap::new();
        let mut at = 0;
        for (gap, happens) in steps {
            at += gap + 1;
            events.insert(at, happens);
        }
        // By hand.
        let (mut quiet, mut count, mut unreadable, mut verdict) = (0, 0, 0, None);
        for t in 1..=at + 10_000 {
            quiet += 1;
            // What was sent is read before the time is judged.
            let happens = events.get(&t);
            if quiet == interval && !matches!(happens, Some(Happens::Beat)) {
                // A garbage at the very end of a slot is the slot's miss, and then one of its own.
                count += 1;
                quiet = 0;
                if count > misses {
                    verdict = Some((ms(t), unreadable * 2 > count));
                    break;
                }
            }
            match happens {
                Some(Happens::Beat) => (quiet, count, unreadable) = (0, 0, 0),
                Some(Happens::Garbage) => {
                    count += 1;
                    unreadable += 1;
                    quiet = 0;
                }
                None => {}
            }
            if count > misses {
                verdict = Some((ms(t), unreadable * 2 > count));
                break;
            }
        }
        for (t, happens) in events {
            // A beat that comes with the deadline is read first.
            bench.to(ms(t) - Duration::from_nanos(1));
            match happens {
                Happens::Beat => {
                    bench.now = ms(t);
                    bench.says(BEAT);
                }
                Happens::Garbage => {
                    bench.to(ms(t));
                    bench.on(Event::Garbage);
                }
            }
        }
        bench.to(ms(at + 10_000));
        let found = bench.killed().map(|(at, why)| (at, why == RestartReason::Garbage));
        prop_assert_eq!(found, verdict);
    }

    /// Two beats: each kind by itself, at the time that follows from its last beat alone.
    #[test]
    fn a_program_of_two_beats_is_convicted_for_the_kind_that_is_missing(
        pulses in prop::collection::vec(1..8000_u64, 1..40),
        software in prop::collection::vec(1..40_000_u64, 0..10),
    ) {
        let mut events = std::collections::BTreeMap::new();
        let mut at = 0;
        for gap in pulses {
            at += gap;
            events.insert((at, 0), PULSE);
        }
        let mut of_software = 0;
        for gap in software {
            of_software += gap;
            events.insert((of_software, 1), BEAT);
        }
        let both = Said { pulse: true, ready: true, ..SILENT };
        let mut bench = Bench::with(TERMS, both);
        let (mut last_pulse, mut last_software, mut verdict) = (0, 0, None);
        let end = at.max(of_software) + 60_000;
        events.insert((end, 2), SILENT);
        for ((t, _), said) in &events {
            let first = (last_pulse + 7000, RestartReason::NoPulse);
            let second = (last_software + 35_000, RestartReason::NoSoftwareBeat);
            let next = if second.0 < first.0 { second } else { first };
            if verdict.is_none() && next.0 < *t {
                verdict = Some((ms(next.0), next.1));
            }
            if said.pulse { last_pulse = *t; }
            if said.beat { last_software = *t; }
            bench.to(ms(*t) - Duration::from_nanos(1));
            bench.now = ms(*t);
            bench.says(*said);
        }
        prop_assert_eq!(bench.killed(), verdict);
    }

    /// However late the guard is, and whatever is late with it: one miss a wake-up at most, and a
    /// silent program is convicted in the end.
    #[test]
    fn a_late_guard_counts_one_miss_a_wake_up_and_convicts_in_the_end(
        delays in prop::collection::vec(0..5000_u64, 1..20),
        two in any::<bool>(),
    ) {
        let mut watch = Watch::new(TERMS, ms(0));
        let said = Said { pulse: two, beat: true, ready: true, ..SILENT };
        prop_assert_eq!(watch.on(Event::Tick, ms(0)), Some(Action::Start));
        watch.on(Event::Started, ms(0));
        watch.on(Event::Said(said), ms(0));
        let (mut now, mut wakes) = (ms(0), 0);
        let mut delays = delays.into_iter().cycle();
        loop {
            wakes += 1;
            let due = watch.next_deadline().unwrap();
            now = now.max(due) + ms(delays.next().unwrap());
            if let Some(action) = watch.on(Event::Tick, now) {
                prop_assert!(matches!(action, Action::Kill(_)));
                break;
            }
            prop_assert!(wakes < 100);
        }
        let least = if two { TERMS.kind_misses } else { TERMS.misses + 1 };
        prop_assert!(wakes >= least, "{} wake-ups", wakes);
        prop_assert!(two || wakes <= 2 * (TERMS.misses + 1), "{} wake-ups", wakes);
    }

    /// Whatever happens: a start only where no life is, no restart after a 0, pauses that grow to
    /// their bound and are forgiven, an answer of `End` is the last one.
    #[test]
    fn there_are_never_two_lives_at_once(
        steps in prop::collection::vec((0..9000_u64, 0..12_u8), 0..120),
    ) {
        let mut watch = Watch::new(TERMS, ms(0));
        let (mut now, mut alive, mut over, mut young) = (ms(0), false, false, 0_u32);
        let (mut began, mut ready) = (ms(0), false);
        let mut stopped = false;
        for (gap, what) in steps {
            let end = now + ms(gap);
            let mut events = vec![(end, match what {
                0 => Event::Said(READY),
                1 | 2 => Event::Said(BEAT),
                3 => Event::Said(PULSE),
                4 => Event::Garbage,
                5 => Event::Exited(Exit::Code(3)),
                6 => Event::Exited(Exit::Signal(11)),
                7 => Event::Exited(Exit::Code(0)),
                8 => Event::StopRequested,
                9 => Event::Exited(Exit::Code(2)),
                10 => Event::Said(Said { stopping: true, ..SILENT }),
                _ => Event::Exited(Exit::Unknown),
            })];
            while let Some(event) = {
                let due = watch.next_deadline().filter(|due| *due <= end);
                due.map(|due| (now.max(due), Event::Tick)).or_else(|| events.pop())
            } {
                now = event.0;
                let of_a_life = !matches!(event.1, Event::StopRequested | Event::Tick);
                stopped |= event.1 == Event::StopRequested;
                let was_ready = watch.ready();
                let answer = watch.on(event.1, now);
                if over || of_a_life && !alive {
                    prop_assert_eq!(answer, None);
                    continue;
                }
                match answer {
                    Some(Action::Start) => {
                        prop_assert!(!alive && !stopped);
                        (alive, began, ready) = (true, now, false);
                        prop_assert_eq!(watch.on(Event::Started, now), None);
                    }
                    Some(Action::Restart { at, .. }) => {
                        prop_assert!(matches!(event.1, Event::Exited(exit) if exit != Exit::Code(0)));
                        prop_assert!(event.1 != Event::Exited(Exit::Code(2)) || was_ready || ready);
                        alive = false;
                        let good = ready && now - began >= GOOD_LIFE;
                        young = if good { 0 } else { young + 1 };
                        let pause = match young {
                            0 => ms(0),
                            n => ms(100 << (n - 1).min(16)).min(ms(30_000)),
                        };
                        prop_assert_eq!(at, now + pause);
                    }
                    Some(Action::End(code)) => {
                        (alive, over) = (false, true);
                        prop_assert!(stopped || code == 0 || code == 2);
                    }
                    Some(Action::Kill(_)) => {
                        prop_assert!(alive);
                        // Its exit code is not its own any more.
                        ready |= was_ready;
                        prop_assert!(watch.killed());
                    }
                    _ => {}
                }
                ready |= watch.ready();
                if watch.killed() { events = vec![(end, Event::Exited(Exit::Signal(9)))]; }
            }
            now = end;
        }
    }
}
