//! Random tokens. A token is new for every STOR, so no session
//! of an earlier attempt can name what a later one writes.

/// 64 random bits.
fn bits() -> u64 {
    // The system's generator fails only before it was ever seeded; a token from the clock is
    // still unique enough for a name, and there is nobody to tell.
    getrandom::u64().unwrap_or_else(|_| crate::clock::unix().to_bits())
}

/// A new token, 16 hexadecimal digits.
pub fn new() -> String {
    format!("{:016x}", bits())
}

/// Uniform in 0 to 1, for jitter.
pub fn random() -> f64 {
    (bits() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_is_within_zero_and_one(_ in 0..100) {
            prop_assert!((0.0..1.0).contains(&random()));
        }
    }
}
