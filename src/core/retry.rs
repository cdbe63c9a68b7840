//! Exponential back-off with jitter, for files and for destinations.
//! Randomness is a parameter; bounds were checked when the configuration was read.

use super::Mono;
use std::time::Duration;

/// How pauses grow.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first pause, above zero.
    pub first: Mono,
    /// The longest pause, at least `first`.
    pub max: Mono,
    /// Random share by which a pause is made longer or shorter, 0 to 1.
    pub jitter: f64,
}

impl Backoff {
    /// The pause after `failures` failures in a row (1 for the first). `random` is uniform in
    /// 0 to 1 and spreads the pauses of files that failed together.
    pub fn pause(&self, failures: u32, random: f64) -> Mono {
        let doubled = self
            .first
            .saturating_mul(1u32 << failures.saturating_sub(1).min(31));
        let pause = doubled.min(self.max).as_secs_f64();
        let factor = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        // Never zero: a zero pause would be a hot loop.
        Duration::from_secs_f64(pause * factor).max(Duration::from_millis(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            max: Duration::from_secs(300),
            jitter: 0.0,
        };
        let pauses: Vec<u64> = (1..12).map(|n| backoff.pause(n, 0.5).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    proptest! {
        /// Jitter stays within its share, and no history of failures overflows.
        #[test]
        fn pauses_stay_within_their_bounds(
            failures in 0u32..u32::MAX, random in 0.0f64..1.0, jitter in 0.0f64..1.0,
        ) {
            let backoff = Backoff {
                first: Duration::from_millis(100),
                max: Duration::from_secs(60),
                jitter,
            };
            let pause = backoff.pause(failures, random);
            prop_assert!(pause >= Duration::from_millis(10));
            prop_assert!(pause <= Duration::from_secs(60).mul_f64(1.0 + jitter + 1e-9));
        }
    }
}
