//! The restart gate of a slot: actix's Supervisor restarts without any pause (hundreds of
//! thousands of times a second), so the daemon asks here first.
//! A worker that lived for a while is replaced at once; workers that die young are replaced
//! after pauses that double, so that a crash loop costs next to nothing.

use super::Mono;
use std::time::Duration;

/// The first pause after a life that was too short.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
pub const LAST: Duration = Duration::from_secs(30);

/// The gate of one slot.
#[derive(Debug, Clone)]
pub struct Gate {
    good_life: Mono,
    began: Mono,
    short_lives: u32,
}

impl Gate {
    /// A gate whose first worker begins now. Whoever lives for `good_life` has earned an
    /// immediate replacement.
    pub fn new(good_life: Mono, now: Mono) -> Self {
        Self {
            good_life,
            began: now,
            short_lives: 0,
        }
    }

    /// A worker ended: when the next one may begin.
    pub fn ended(&mut self, now: Mono) -> Mono {
        self.ended_as(true, now)
    }

    /// The same; one that was not `of_use` died young, however long it lived.
    pub fn ended_as(&mut self, of_use: bool, now: Mono) -> Mono {
        if of_use && now.saturating_sub(self.began) >= self.good_life {
            self.short_lives = 0;
            return now;
        }
        let pause = FIRST
            .saturating_mul(1 << self.short_lives.min(16))
            .min(LAST);
        self.short_lives += 1;
        now + pause
    }

    /// A new worker begins.
    pub fn began(&mut self, now: Mono) {
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_worker_that_lived_is_replaced_at_once() {
        let mut gate = Gate::new(Duration::from_secs(2), Duration::ZERO);
        let now = Duration::from_secs(2);
        assert_eq!(gate.ended(now), now);
    }

    #[test]
    fn a_crash_loop_is_slowed_down_and_forgiven_after_a_good_life() {
        let mut gate = Gate::new(Duration::from_secs(2), Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..20 {
            now = gate.ended(now);
            gate.began(now);
        }
        assert_eq!(gate.ended(now), now + LAST);
        now += Duration::from_secs(2);
        assert_eq!(gate.ended(now), now);
        gate.began(now);
        assert_eq!(gate.ended(now), now + FIRST);
    }

    proptest! {
        /// Whatever the lives, restarts within any minute stay few.
        #[test]
        fn short_lives_never_make_a_hot_loop(lives in prop::collection::vec(0u64..500, 10..200)) {
            let mut gate = Gate::new(Duration::from_secs(2), Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut starts = Vec::new();
            for life in lives {
                now += Duration::from_millis(life);
                let next = gate.ended(now);
                prop_assert!(next >= now && next <= now + LAST);
                now = next;
                gate.began(now);
                starts.push(now);
            }
            for (i, start) in starts.iter().enumerate() {
                let minute = starts[i..].iter().take_while(|s| **s - *start < Duration::from_secs(60));
                prop_assert!(minute.count() <= 12);
            }
        }
    }
}
