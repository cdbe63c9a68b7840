//! The guard's decisions in random histories, against models that count by hand.

use proptest::prelude::*;

use super::*;

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
