//! Deadlines and attempts (S2): when a phase is overdue, and how often a connect is tried.
//! The daemon enforces what this says by interrupting the worker; sockets have no say.

use super::Mono;
use super::heartbeat::Policy;
use std::time::Duration;

/// Longest time between two Ticks.
const TICK_MAX: Duration = Duration::from_millis(250);

/// Time between two Ticks: they divide the heartbeat's interval, so that beats keep to it, and are
/// no further apart than the retries of a lease.
pub fn tick_period(policy: &Policy) -> Mono {
    let longest = policy
        .lease
        .map_or(TICK_MAX, |terms| terms.floor.min(TICK_MAX));
    let parts = policy
        .interval
        .as_millis()
        .div_ceil(longest.as_millis().max(1));
    policy.interval / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}

/// Whether the daemon has to interrupt a worker now: its phase is over its deadline and was not
/// interrupted yet. Phases are numbered within an epoch, so an interrupt can never hit a later one.
pub fn overdue(phase_number: u64, deadline: Option<Mono>, interrupted: u64, now: Mono) -> bool {
    interrupted != phase_number && deadline.is_some_and(|deadline| now > deadline)
}

/// A number of attempts with pauses between them: at most (timeout + interval) x count in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts in total, at least 1.
    pub count: u32,
    /// Bound of each attempt.
    pub timeout: Mono,
    /// Pause between two attempts.
    pub interval: Mono,
}

impl Attempts {
    /// Whether there is another attempt after attempt number `tried` (from 1) failed.
    pub fn again(&self, tried: u32) -> bool {
        tried < self.count
    }

    /// The longest that all attempts and pauses can take.
    pub fn total(&self) -> Mono {
        (self.timeout + self.interval).saturating_mul(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A worker that goes through phases is interrupted at most once in each, and only when
        /// that phase is over its deadline.
        #[test]
        fn each_overdue_phase_is_interrupted_exactly_once(
            phases in prop::collection::vec((0u64..50, prop::option::of(0u64..30)), 1..40),
        ) {
            let (mut now, mut interrupted) = (Duration::ZERO, 0);
            for (number, (lasts, bound)) in phases.into_iter().enumerate() {
                let number = number as u64 + 1;
                let deadline = bound.map(|b| now + Duration::from_secs(b));
                let end = now + Duration::from_secs(lasts);
                let mut times = 0;
                while now <= end {
                    if overdue(number, deadline, interrupted, now) {
                        prop_assert!(deadline.is_some_and(|d| now > d));
                        interrupted = number;
                        times += 1;
                    }
                    now += Duration::from_secs(1);
                }
                prop_assert_eq!(times, usize::from(bound.is_some_and(|b| b < lasts)));
            }
        }

        /// (timeout + interval) x count bounds what is really tried.
        #[test]
        fn attempts_stay_within_their_total(count in 1u32..20, timeout in 1u64..100, pause in 0u64..50) {
            let attempts = Attempts {
                count,
                timeout: Duration::from_secs(timeout),
                interval: Duration::from_secs(pause),
            };
            let (mut tried, mut spent) = (0, Duration::ZERO);
            loop {
                tried += 1;
                spent += attempts.timeout;
                if !attempts.again(tried) { break }
                spent += attempts.interval;
            }
            prop_assert_eq!(tried, count);
            prop_assert!(spent <= attempts.total());
        }
    }
}
