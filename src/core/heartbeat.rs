//! Judges one slot by its beats (S1.2, S1.3): a beat that is neither acked nor vouched is missed.
//! Policy `count`: more than N misses in a row are a deadlock. Policy `lease` (S3): the end of the
//! lease is, and after a miss the Pings come at gaps that shrink towards that end.
//! It reads no evidence and sends nothing: the caller says what a Pong was worth and carries out
//! what `tick` answers. A late tick convicts nobody; stale epochs change nothing.

use super::Mono;
use super::lease::{Lease, Terms};
use super::names::Beat;
use super::timers::tick_period;
use std::time::Duration;

/// So many times their period apart, ticks tell that the observer was away.
const GAP_TICKS: u32 = 4;
/// What a worker may take, after a suspension, to come to an event that is there already.
const LENIENCE: Duration = Duration::from_secs(1);

/// When a slot is convicted.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Time between two Pings; ticks divide it.
    pub interval: Mono,
    /// Missed beats in a row that are tolerated (N); also how many late rounds of the observer
    /// itself in a row are excused.
    pub misses: u32,
    /// The lease that convicts in place of the count, if that is the policy.
    pub lease: Option<Terms>,
}

impl Policy {
    /// How long it takes at most from the last sign of life to the verdict.
    pub fn detection(&self) -> Mono {
        let count = self.interval * (self.misses + 2);
        // A good beat is known two intervals after its Ping, and a lease is looked at every tick.
        self.lease.map_or(count, |terms| terms.term + self.interval)
    }

    /// How long a worker lives at least before it can be convicted.
    pub fn shortest_life(&self) -> Mono {
        let count = self.interval * (self.misses + 1);
        self.lease.map_or(count, |terms| terms.term)
    }
}

/// What the caller has to do after a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing is due.
    Wait,
    /// Send this Ping.
    Ping {
        /// Its number within the epoch, from 1.
        seq: u64,
    },
    /// The interval is over and the last Ping is still unanswered: count the miss, send nothing
    /// (an unanswered message stays in the mailbox, a second one would only pile up).
    Unanswered,
}

/// The machine of one slot.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    policy: Policy,
    epoch: u64,
    seq: u64,
    due: Mono,
    ticked: Mono,
    sent_at: Mono,
    previous_sent_at: Mono,
    outstanding: bool,
    failures: u32,
    /// Late rounds in a row.
    postponed: u32,
    /// Whether the observer was away in this round.
    away: bool,
    /// Ticks that were far apart, in a row.
    gaps: u32,
    /// Until then the observer cannot say that others were late.
    lenient_until: Mono,
    /// Whether a miss that is found now counts for nothing, because the observer was away.
    excused: bool,
    last_good: Mono,
    lease: Option<Lease>,
    expired: bool,
}

impl Heartbeat {
    /// A slot whose worker of `epoch` has just begun: its first Ping is due now.
    pub fn new(policy: Policy, epoch: u64, now: Mono) -> Self {
        Self {
            policy,
            epoch,
            seq: 0,
            due: Mono::ZERO,
            ticked: now,
            sent_at: now,
            previous_sent_at: now,
            outstanding: false,
            failures: 0,
            postponed: 0,
            away: false,
            gaps: 0,
            lenient_until: now,
            excused: false,
            last_good: now,
            lease: policy.lease.map(|terms| Lease::new(terms, now)),
            expired: false,
        }
    }

    /// Missed beats in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the last good beat's Ping was sent.
    pub fn last_good(&self) -> Mono {
        self.last_good
    }

    /// Whether the observer itself was away a moment ago: then the worker, too, has only just come
    /// back to look at its event, and no deadline is enforced yet.
    pub fn lenient(&self, now: Mono) -> bool {
        now < self.lenient_until
    }

    /// The Pong to Ping `seq` of `epoch` came, and the beat *before* it was worth `beat`.
    /// Returns what was counted: nothing for a stale Pong or an epoch's first one.
    pub fn pong(&mut self, epoch: u64, seq: u64, beat: Beat) -> Option<Beat> {
        if epoch != self.epoch || seq != self.seq || !self.outstanding {
            return None;
        }
        self.outstanding = false;
        if seq < 2 {
            return None;
        }
        match beat {
            Beat::Acked | Beat::Vouched => {
                self.failures = 0;
                self.last_good = self.previous_sent_at;
                if let Some(lease) = &mut self.lease {
                    lease.renew(self.last_good);
                }
            }
            Beat::Missed => self.missed(self.sent_at),
        }
        Some(beat)
    }

    /// The Ping could not be sent: the beat is missed, and its number is sent again.
    pub fn not_sent(&mut self) {
        if self.outstanding {
            self.outstanding = false;
            self.seq -= 1;
            self.missed(self.sent_at);
            self.sent_at = self.previous_sent_at;
        }
    }

    /// A beat was missed: counted, unless the observer itself was away. Under a lease the next
    /// Ping is due at the next retry instead of the next interval.
    fn missed(&mut self, now: Mono) {
        if !self.excused {
            self.failures += 1;
        }
        if let Some(lease) = &self.lease {
            self.due = lease.retry(now).unwrap_or(lease.ends());
        }
    }

    /// The verdict: more than N beats were missed in a row, or the lease is over.
    pub fn deadlocked(&self) -> bool {
        match self.lease {
            None => self.failures > self.policy.misses,
            Some(_) => self.expired,
        }
    }

    /// After a gap in its ticks the observer is lenient for a moment; if its ticks never keep to
    /// their time it is not, or no deadline would ever be enforced.
    fn be_lenient(&mut self, gap: Mono, now: Mono) {
        if gap <= tick_period(&self.policy) * GAP_TICKS {
            self.gaps = 0;
        } else if self.gaps < self.policy.misses {
            self.gaps += 1;
            self.lenient_until = now + LENIENCE;
        }
    }

    /// Time goes on; called at least once an interval. `scheduled` is the time this tick was meant
    /// for (Pings keep to that grid), `now` when it is handled: a late one shows itself.
    pub fn tick(&mut self, scheduled: Mono, now: Mono) -> Action {
        // Ticks come at least once an interval: whoever saw none for longer was away (suspended,
        // starved) and cannot say that the others were.
        let gap = now.saturating_sub(self.ticked.min(now));
        let late = gap > self.policy.interval + self.policy.interval / 2;
        self.ticked = now;
        self.away |= late;
        self.be_lenient(gap, now);
        if let Some(lease) = &mut self.lease {
            if late && self.postponed < self.policy.misses {
                lease.extend(gap);
            }
            // Only a lease under which something was missed can be over.
            self.expired = self.failures > 0 && lease.expired(now);
        }
        if scheduled < self.due || self.expired {
            return Action::Wait;
        }
        let excused = self.away && self.postponed < self.policy.misses;
        self.postponed = if self.away {
            self.postponed.saturating_add(1)
        } else {
            0
        };
        self.away = false;
        // The beat that is judged next was still running while the observer was away.
        self.excused = excused;
        self.due = scheduled + self.policy.interval;
        if self.outstanding {
            self.missed(now);
            return Action::Unanswered;
        }
        self.seq += 1;
        self.outstanding = true;
        self.previous_sent_at = self.sent_at;
        self.sent_at = now;
        Action::Ping { seq: self.seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn policy(misses: u32) -> Policy {
        Policy {
            interval: INTERVAL,
            misses,
            lease: None,
        }
    }

    const TERMS: Terms = Terms {
        term: Duration::from_secs(10),
        floor: Duration::from_millis(250),
    };

    fn leased() -> Policy {
        Policy {
            lease: Some(TERMS),
            ..policy(3)
        }
    }

    /// Runs a slot whose beats have these worths until it is convicted; returns the time from
    /// the last good Ping to the verdict.
    fn run(misses: u32, mut worth: impl FnMut(u64) -> Option<Beat>) -> Option<(Mono, Mono)> {
        let start = Duration::from_secs(100);
        run_under(policy(misses), start, &mut worth)
    }

    fn run_under(
        policy: Policy,
        start: Mono,
        mut worth: impl FnMut(u64) -> Option<Beat>,
    ) -> Option<(Mono, Mono)> {
        let mut beat = Heartbeat::new(policy, 1, start);
        let mut now = start;
        for _ in 0..200 {
            if let Action::Ping { seq } = beat.tick(now, now)
                && let Some(w) = worth(seq)
            {
                beat.pong(1, seq, w);
            }
            if beat.deadlocked() {
                return Some((beat.last_good(), now));
            }
            now += Duration::from_millis(250);
        }
        None
    }

    #[test]
    fn a_wedge_is_convicted_within_n_plus_two_intervals() {
        for misses in 1..6 {
            let (last, at) = run(misses, |seq| {
                Some(if seq <= 5 { Beat::Acked } else { Beat::Missed })
            })
            .expect("convicted");
            assert!(at - last <= INTERVAL * (misses + 2));
        }
    }

    #[test]
    fn an_actor_that_never_answers_is_convicted_too() {
        let (_, at) = run(3, |_| None).expect("convicted");
        assert!(at - Duration::from_secs(100) <= INTERVAL * 5);
    }

    #[test]
    fn an_answered_slot_is_never_convicted() {
        assert_eq!(
            run(1, |seq| Some(if seq % 2 == 0 {
                Beat::Acked
            } else {
                Beat::Missed
            })),
            None
        );
        assert_eq!(run(1, |_| Some(Beat::Vouched)), None);
    }

    #[test]
    fn a_pong_of_an_old_epoch_changes_nothing() {
        let mut beat = Heartbeat::new(policy(1), 7, Duration::ZERO);
        assert_eq!(
            beat.tick(Duration::ZERO, Duration::ZERO),
            Action::Ping { seq: 1 }
        );
        assert_eq!(beat.pong(6, 1, Beat::Acked), None);
        assert_eq!(beat.tick(INTERVAL, INTERVAL), Action::Unanswered);
        assert_eq!(beat.failures(), 1);
    }

    #[test]
    fn a_suspended_observer_convicts_nobody_at_once() {
        let mut beat = Heartbeat::new(policy(3), 1, Duration::ZERO);
        assert_eq!(
            beat.tick(Duration::ZERO, Duration::ZERO),
            Action::Ping { seq: 1 }
        );
        assert_eq!(
            beat.tick(INTERVAL, Duration::from_secs(3600)),
            Action::Unanswered
        );
        assert_eq!(beat.failures(), 0);
    }

    #[test]
    fn an_observer_that_is_always_late_still_convicts_and_enforces() {
        for policy in [policy(3), leased()] {
            let mut beat = Heartbeat::new(policy, 1, Duration::ZERO);
            let (mut now, mut enforces) = (Duration::ZERO, false);
            while !beat.deadlocked() {
                beat.tick(now, now);
                enforces |= !beat.lenient(now);
                assert!(now < INTERVAL * 60, "never convicted");
                now += INTERVAL * 2;
            }
            assert!(enforces, "no deadline was ever enforced");
        }
    }

    #[test]
    fn after_a_gap_deadlines_wait_for_a_moment_only() {
        let mut beat = Heartbeat::new(leased(), 1, Duration::ZERO);
        beat.tick(Duration::ZERO, Duration::ZERO);
        // Shorter than a beat, but long enough for a deadline to pass unseen.
        let back = Duration::from_millis(1900);
        beat.tick(back, back);
        assert!(beat.lenient(back));
        assert!(!beat.lenient(back + LENIENCE));
    }

    #[test]
    fn a_ping_that_could_not_be_sent_costs_one_miss() {
        let mut beat = Heartbeat::new(policy(3), 1, Duration::ZERO);
        let mut now = Duration::ZERO;
        for seq in 1..4 {
            assert_eq!(beat.tick(now, now), Action::Ping { seq });
            beat.pong(1, seq, Beat::Acked);
            now += INTERVAL;
        }
        assert_eq!(beat.tick(now, now), Action::Ping { seq: 4 });
        beat.not_sent();
        assert_eq!(beat.failures(), 1);
        now += INTERVAL;
        // The same number: a worker that has acked the third is judged by it.
        assert_eq!(beat.tick(now, now), Action::Ping { seq: 4 });
        assert_eq!(beat.pong(1, 4, Beat::Acked), Some(Beat::Acked));
        assert_eq!(beat.failures(), 0);
    }

    /// When Pings are sent to a worker that is good until (not including) Ping `wedged`, and when
    /// it is convicted.
    fn leased_pings(wedged: u64, answers: bool) -> (Vec<Mono>, Mono) {
        let mut sent = Vec::new();
        let mut beat = Heartbeat::new(leased(), 1, Duration::ZERO);
        let mut now = Duration::ZERO;
        while !beat.deadlocked() {
            if let Action::Ping { seq } = beat.tick(now, now) {
                sent.push(now);
                let good = seq <= wedged;
                if good || answers {
                    beat.pong(1, seq, if good { Beat::Acked } else { Beat::Missed });
                }
            }
            assert!(now < Duration::from_secs(60), "never convicted");
            now += TERMS.floor;
        }
        (sent, now - TERMS.floor)
    }

    #[test]
    fn under_a_lease_pings_come_closer_as_its_end_does() {
        // The beat of Ping 5 (sent at 8 s) is the last good one.
        let (sent, convicted) = leased_pings(6, true);
        let ms: Vec<_> = sent.iter().map(Duration::as_millis).skip(4).collect();
        assert_eq!(ms, [8000, 10_000, 12_000, 15_000, 16_500, 17_250, 17_750]);
        assert_eq!(convicted.as_millis(), 18_000);
    }

    #[test]
    fn under_a_lease_an_actor_that_never_answers_gets_no_second_ping() {
        let (sent, convicted) = leased_pings(5, false);
        assert_eq!(sent.len(), 6);
        assert_eq!(convicted.as_millis(), 16_000, "granted by the Ping of 6 s");
    }

    #[test]
    fn a_suspended_holder_of_leases_convicts_nobody_at_once() {
        let mut beat = Heartbeat::new(leased(), 1, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..3 {
            if let Action::Ping { seq } = beat.tick(now, now) {
                beat.pong(1, seq, Beat::Acked);
            }
            now += INTERVAL;
        }
        now += Duration::from_secs(3600);
        beat.tick(now, now);
        assert!(!beat.deadlocked() && beat.lenient(now));
    }

    proptest! {
        /// Against a model that counts consecutive misses of a punctual observer.
        #[test]
        fn conviction_comes_exactly_after_more_than_n_misses_in_a_row(
            misses in 1u32..6,
            worths in prop::collection::vec(0u8..3, 1..80),
        ) {
            let mut machine = Heartbeat::new(policy(misses), 3, Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut row = 0u32;
            for worth in worths {
                let action = machine.tick(now, now);
                prop_assert_eq!(row > misses, machine.deadlocked());
                if row > misses { return Ok(()) }
                let Action::Ping { seq } = action else { return Ok(()) };
                let beat = Beat::ALL[usize::from(worth)];
                let counted = machine.pong(3, seq, beat);
                match counted {
                    Some(Beat::Missed) => row += 1,
                    Some(Beat::Acked | Beat::Vouched) => row = 0,
                    None => prop_assert_eq!(seq, 1),
                }
                prop_assert_eq!(machine.failures(), row);
                now += INTERVAL;
            }
        }

        /// Policy lease against a model: convicted at the first tick at which the lease of the last
        /// good beat is over, and not before; a single good beat makes everything as new.
        #[test]
        fn a_lease_convicts_exactly_at_its_end(worths in prop::collection::vec(0u8..3, 1..120)) {
            let mut machine = Heartbeat::new(leased(), 3, Duration::ZERO);
            let (mut now, mut granted) = (Duration::ZERO, Duration::ZERO);
            let (mut before, mut missed) = (Duration::ZERO, 0u32);
            let (mut worths, mut over) = (worths.into_iter().peekable(), false);
            while worths.peek().is_some() && !over {
                let action = machine.tick(now, now);
                over = missed > 0 && now >= granted + TERMS.term;
                prop_assert_eq!(machine.deadlocked(), over);
                if let (Action::Ping { seq }, false) = (action, over) {
                    let worth = worths.next().unwrap_or(0);
                    match machine.pong(3, seq, Beat::ALL[usize::from(worth)]) {
                        Some(Beat::Missed) => missed += 1,
                        Some(Beat::Acked | Beat::Vouched) => (granted, missed) = (before, 0),
                        None => prop_assert_eq!(seq, 1),
                    }
                    prop_assert_eq!(machine.failures(), missed);
                    // O(log(term / floor)) Pings in a row of misses.
                    prop_assert!(missed <= 9, "{} Pings", missed);
                    before = now;
                }
                now += TERMS.floor;
            }
        }

        /// Whatever the ticks and answers, time never convicts a slot whose every beat is good.
        #[test]
        fn good_beats_are_never_convicted_whatever_the_ticks(
            gaps in prop::collection::vec(0u64..10_000, 1..200),
            misses in 1u32..5,
            lease in any::<bool>(),
        ) {
            let policy = Policy { lease: lease.then_some(TERMS), ..policy(misses) };
            let mut machine = Heartbeat::new(policy, 1, Duration::ZERO);
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Action::Ping { seq } = machine.tick(now, now) {
                    machine.pong(1, seq, Beat::Acked);
                }
                prop_assert!(!machine.deadlocked(), "convicted a healthy slot");
            }
        }
    }
}
