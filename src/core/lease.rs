//! A lease and the schedule of its retries (S3): a good exchange renews it; after an abnormal one
//! the next try comes at half of what is left, never closer than the floor, until one is good or
//! the lease is over. Few tries while a fault is young, more as the end comes near.
//! It knows neither what a try is nor who answers; ring 1 and a fleet use it alike.

use super::Mono;

/// The terms of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it runs from the exchange that renewed it.
    pub term: Mono,
    /// The shortest gap between two tries, above zero.
    pub floor: Mono,
}

/// A lease as its holder sees it: it runs from when the request of a good exchange was *sent*.
/// The granter counts from when it received that request, so the holder always sees it expire
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    terms: Terms,
    granted: Mono,
}

impl Lease {
    /// A lease that begins now.
    pub fn new(terms: Terms, now: Mono) -> Self {
        Self {
            terms,
            granted: now,
        }
    }

    /// An exchange whose request was sent then was good. An older one than the last changes
    /// nothing.
    pub fn renew(&mut self, sent: Mono) {
        self.granted = self.granted.max(sent);
    }

    /// Time that nobody could use (the holder itself was suspended) does not count.
    pub fn extend(&mut self, lost: Mono) {
        self.granted += lost;
    }

    /// When it is over.
    pub fn ends(&self) -> Mono {
        self.granted + self.terms.term
    }

    /// Whether it is over.
    pub fn expired(&self, now: Mono) -> bool {
        now >= self.ends()
    }

    /// When to try again after an abnormal exchange at `now`; none when no try fits in before the
    /// end.
    pub fn retry(&self, now: Mono) -> Option<Mono> {
        let left = self.ends().saturating_sub(now);
        let at = now + (left / 2).max(self.terms.floor);
        (at < self.ends()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const MS: fn(u64) -> Mono = Duration::from_millis;

    fn terms() -> impl Strategy<Value = Terms> {
        (1u64..5_000, 1u64..200).prop_map(|(floor, times)| Terms {
            term: MS(floor * times),
            floor: MS(floor),
        })
    }

    /// The tries of a holder that is never answered, the first at `from` after the grant.
    fn tries(terms: Terms, from: Mono) -> Vec<Mono> {
        let lease = Lease::new(terms, Mono::ZERO);
        std::iter::successors(Some(from), |now| lease.retry(*now)).collect()
    }

    #[test]
    fn the_gaps_halve_down_to_the_floor() {
        let terms = Terms {
            term: MS(10_000),
            floor: MS(250),
        };
        let gaps: Vec<u128> = tries(terms, MS(2_000))
            .windows(2)
            .map(|w| (w[1] - w[0]).as_millis())
            .collect();
        assert_eq!(gaps, [4000, 2000, 1000, 500, 250]);
    }

    proptest! {
        #[test]
        fn retries_stay_inside_the_lease_and_gaps_never_grow(terms in terms(), from in 0.0..1.0) {
            let tries = tries(terms, terms.term.mul_f64(from));
            for pair in tries.windows(2) {
                prop_assert!(pair[1] < terms.term);
                prop_assert!(pair[1] - pair[0] >= terms.floor);
            }
            for three in tries.windows(3) {
                prop_assert!(three[2] - three[1] <= three[1] - three[0]);
            }
        }

        /// O(log(term / floor)): halving until the floor, then less than two floors are left.
        #[test]
        fn the_number_of_tries_is_logarithmic(terms in terms(), from in 0.0..1.0) {
            let count = tries(terms, terms.term.mul_f64(from)).len() as f64;
            let ratio = terms.term.as_secs_f64() / terms.floor.as_secs_f64();
            prop_assert!(count <= ratio.log2() + 3.0, "{} tries for {}", count, ratio);
        }

        /// Whatever went before, one good exchange makes the lease as good as new.
        #[test]
        fn a_single_answer_resets_all(
            terms in terms(),
            abnormal in prop::collection::vec(0u64..1000, 0..20),
        ) {
            let mut lease = Lease::new(terms, Mono::ZERO);
            let mut now = Mono::ZERO;
            for pause in abnormal {
                now = lease.retry(now).unwrap_or(now + MS(pause));
            }
            lease.renew(now);
            prop_assert_eq!(lease, Lease::new(terms, now));
            prop_assert!(!lease.expired(now));
        }

        /// The granter counts from the receipt, which comes after the sending.
        #[test]
        fn the_holder_sees_it_expire_before_the_granter(
            terms in terms(),
            exchanges in prop::collection::vec((0u64..10_000, 0u64..3_000), 1..20),
        ) {
            let mut holder = Lease::new(terms, Mono::ZERO);
            let mut granter = holder;
            let mut now = Mono::ZERO;
            for (pause, way) in exchanges {
                now += MS(pause);
                holder.renew(now);
                granter.renew(now + MS(way));
                prop_assert!(holder.ends() <= granter.ends());
            }
        }

        #[test]
        fn an_old_exchange_changes_nothing(terms in terms(), sent in 1u64..10_000, old in 0u64..10_000) {
            let mut lease = Lease::new(terms, Mono::ZERO);
            lease.renew(MS(sent));
            let before = lease;
            lease.renew(MS(old.min(sent)));
            prop_assert_eq!(lease, before);
        }
    }
}
