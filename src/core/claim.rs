//! Whose turn it is where several routes want the seats of one destination: the route of the
//! higher priority, but a route that got none for a while has its turn first, whatever its
//! priority. So a low one is slow, never starved.

use super::Mono;
use std::time::Duration;

/// A route without any seat for as long goes before all that have one.
pub const HUNGER_MAX: Mono = Duration::from_secs(60);

/// A route's claim; the greater one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    overdue: bool,
    priority: i32,
}

impl Claim {
    /// The claim of a route that has files and no seat since `hungry`, if it has none.
    pub fn new(priority: i32, hungry: Option<Mono>, now: Mono) -> Self {
        let overdue = hungry.is_some_and(|since| now.saturating_sub(since) >= HUNGER_MAX);
        Self { overdue, priority }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_higher_priority_goes_first_until_the_lower_one_is_overdue() {
        let since = Duration::from_secs(100);
        let high = Claim::new(10, None, since);
        let low = |after: u64| Claim::new(-10, Some(since), since + Duration::from_secs(after));
        assert!(high > low(0) && high > low(59));
        assert!(high < low(60));
    }

    proptest! {
        /// One seat, always wanted by all: each route has it again and again.
        #[test]
        fn nobody_starves(priorities in prop::collection::vec(-100i32..=100, 1..6)) {
            let count = priorities.len();
            let mut hungry = vec![Some(Mono::ZERO); count];
            let mut last = vec![Mono::ZERO; count];
            for second in (0..3_600).step_by(5) {
                let now = Duration::from_secs(second);
                let first = (0..count)
                    .max_by_key(|route| Claim::new(priorities[*route], hungry[*route], now))
                    .unwrap_or(0);
                for route in 0..count {
                    match route == first {
                        true => (hungry[route], last[route]) = (None, now),
                        false => hungry[route] = hungry[route].or(Some(now)),
                    }
                    // All others may be overdue before it, each for one turn.
                    let most = HUNGER_MAX + Duration::from_secs(5 * (count as u64 + 1));
                    prop_assert!(now.saturating_sub(last[route]) <= most * 2, "{route}");
                }
            }
        }
    }
}
