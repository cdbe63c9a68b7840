//! The guard's decisions: every rule by example.

mod histories;

use super::*;

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
    assert!(!bench.watch.judges());
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

    // Whoever asks twice has the last word, whatever the program says.
    let mut bench = Bench::with(TERMS, READY);
    bench.on(Event::StopRequested);
    bench.on(Event::StopRequested);
    bench.says(Said { extend, ..SILENT });
    bench.to(ms(60_000));
    assert_eq!(bench.killed(), Some((ms(1000), RestartReason::Exit)));

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
