//! Random tokens and the temp names made of them. A token is new for every STOR, so no session
//! of an earlier attempt can name what a later one writes.

/// Longest file name that common file systems take, bytes.
const NAME_MAX: usize = 255;

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

/// The temp name beside the final name `path`: `.<name cut to fit>.<agent>-<token>.part`.
pub fn temp_name(path: &str, agent: &str, token: &str) -> String {
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(f, n)| (f, n));
    let frame = format!("..{agent}-{token}.part").len();
    let mut cut = name.len().min(NAME_MAX.saturating_sub(frame));
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{folder}{slash}.{}.{agent}-{token}.part", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_temp_name_stands_beside_its_final_name() {
        assert_eq!(temp_name("a/b.txt", "ag", "7"), "a/.b.txt.ag-7.part");
        assert_eq!(temp_name("b", "ag", "7"), ".b.ag-7.part");
    }

    proptest! {
        /// Whatever the name, its temp name fits, is hidden and stays in the folder.
        #[test]
        fn temp_names_fit(name in "[^/\\x00-\\x1f]{1,260}") {
            prop_assume!(name.len() <= NAME_MAX);
            let temp = temp_name(&format!("d/{name}"), "0123456789abcdef", &new());
            let last = temp.strip_prefix("d/.").expect("hidden, in its folder");
            prop_assert!(last.len() < NAME_MAX);
            prop_assert!(last.ends_with(".part"));
        }

        #[test]
        fn random_is_within_zero_and_one(_ in 0..100) {
            prop_assert!((0.0..1.0).contains(&random()));
        }
    }
}
