//! The bucket of a rate limit: so many bytes a second on average, and a tenth of a second's worth
//! (never less than 1 KiB) at once. Whoever wants to send reserves and is told when it may: in the
//! order in which they ask, so that nobody starves. Time is a parameter.

use super::Mono;
use std::time::Duration;

/// The least burst, in bytes: less could not be sent in sensible pieces.
const BURST_MIN: u64 = 1024;
/// The largest piece that is reserved at once, in bytes: a safe point comes after each.
const PIECE_MAX: u64 = 512 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Bytes a second, at least 1.
    rate: u64,
    /// Bytes that may go at once after a rest.
    burst: u64,
    /// When all that was reserved so far is earned.
    earned: Mono,
}

impl Bucket {
    /// A full bucket for `rate` bytes a second; 0 counts as 1.
    pub fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            burst: (rate / 10).max(BURST_MIN),
            earned: Mono::ZERO,
        }
    }

    /// How far the bytes sent in any span of time may exceed the rate's, in bytes.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// How many bytes may be sent and not yet acknowledged, so that a dead path shows soon: what
    /// the rate gives in two seconds, enough for any round trip.
    pub fn in_flight(&self) -> u64 {
        self.rate.saturating_mul(2).max(self.burst)
    }

    /// The most bytes that may be reserved at once: half a burst, so that a waiting sender is
    /// never far from its next byte.
    pub fn piece(&self) -> u64 {
        (self.burst / 2).min(PIECE_MAX)
    }

    /// Reserves `bytes` (at most [`Bucket::piece`] of them) and tells when they may be sent: now or
    /// later. What is reserved is spent, sent or not.
    pub fn reserve(&mut self, bytes: u64, now: Mono) -> Mono {
        let full = now.saturating_sub(self.time_of(self.burst));
        self.earned = self.earned.max(full) + self.time_of(bytes.min(self.piece()));
        self.earned.max(now)
    }

    /// How long the rate takes to earn so many bytes, rounded up.
    fn time_of(&self, bytes: u64) -> Duration {
        let nanoseconds = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.rate));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut bucket = Bucket::new(100_000);
        let now = Duration::from_secs(7);
        assert_eq!((bucket.burst(), bucket.piece()), (10_000, 5_000));
        assert_eq!(bucket.reserve(5_000, now), now);
        assert_eq!(bucket.reserve(5_000, now), now);
        assert_eq!(bucket.reserve(5_000, now), now + Duration::from_millis(50));
        assert_eq!(bucket.reserve(1_000, now), now + Duration::from_millis(60));
    }

    #[test]
    fn a_long_rest_earns_no_more_than_a_burst() {
        let mut bucket = Bucket::new(100_000);
        bucket.reserve(5_000, Duration::from_secs(1));
        let now = Duration::from_secs(1_000_000);
        let sent = (0..3).filter(|_| bucket.reserve(5_000, now) == now).count();
        assert_eq!(sent, 2);
    }

    proptest! {
        /// Over any history, no span of time carries more than its rate and a burst; and whoever
        /// asks is served in order, with all that the rate earns.
        #[test]
        fn no_span_exceeds_the_rate_by_more_than_the_burst(
            rate in 1u64..10_000_000_000,
            steps in prop::collection::vec((0u64..2_000_000_000, 1u64..1_000_000), 1..80),
        ) {
            let mut bucket = Bucket::new(rate);
            let mut now = Duration::from_secs(3);
            let mut sent: Vec<(Mono, u64)> = Vec::new();
            for (pause, want) in steps {
                now += Duration::from_nanos(pause);
                let bytes = want.min(bucket.piece());
                let at = bucket.reserve(want, now);
                prop_assert!(at >= now);
                prop_assert!(sent.last().is_none_or(|(last, _)| *last <= at || at == now));
                sent.push((at, bytes));
                // Nobody waits longer than what was reserved since the first takes to be earned.
                let all: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
                let longest = all as f64 / rate as f64 + 1e-6 * sent.len() as f64;
                prop_assert!((at - Duration::from_secs(3)).as_secs_f64()
                    <= (now - Duration::from_secs(3)).as_secs_f64() + longest);
            }
            for (i, (from, _)) in sent.iter().enumerate() {
                let mut sum = 0u64;
                for (to, bytes) in &sent[i..] {
                    sum += bytes;
                    let span = to.saturating_sub(*from).as_secs_f64();
                    let allowed = span * rate as f64 + bucket.burst() as f64;
                    prop_assert!(sum as f64 <= allowed * 1.000_001 + 1.0, "{sum} in {span} s");
                }
            }
        }
    }
}
