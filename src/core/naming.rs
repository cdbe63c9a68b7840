//! The names under which a file stands on a server besides its own: a number where the name is
//! taken, the temporary name while it is sent, the marker that tells that it is whole. Every name
//! fits into what file systems take, and stays where it belongs.

mod pattern;

pub use pattern::{LITERAL_MAX, Pattern, Unfit};

/// Longest file name that common file systems take, bytes.
const NAME_MAX: usize = 255;

/// The folder of a path, empty or with its slash, and the name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/')
        .map_or(("", path), |(folder, name)| (&path[..=folder.len()], name))
}

/// `text`, cut at the end of a character so that it has `max` bytes at most.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The `n`th other name for a final name that is taken: `a/x.csv` becomes `a/x-1.csv`; 0 is the
/// name itself.
pub fn numbered(path: &str, n: u32) -> String {
    if n == 0 {
        return path.to_owned();
    }
    let (folder, name) = split(path);
    let dot = name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, ending) = name.split_at(dot);
    let number = format!("-{n}");
    let room = NAME_MAX.saturating_sub(number.len());
    // An ending that leaves no room for anything else is none.
    let (stem, ending) = if ending.len() < room {
        (stem, ending)
    } else {
        (name, "")
    };
    let stem = cut(stem, room - ending.len());
    format!("{folder}{stem}{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_goes_before_the_ending() {
        for (name, other) in [
            ("x.csv", "x-2.csv"),
            ("a.b/x", "a.b/x-2"),
            ("a/.profile", "a/.profile-2"),
            ("x.tar.gz", "x.tar-2.gz"),
            ("x.", "x-2."),
        ] {
            assert_eq!(numbered(name, 2), other);
            assert_eq!(numbered(name, 0), name);
        }
    }

    proptest! {
        /// Whatever the name, each number gives another name that fits, in the same folder.
        #[test]
        fn numbered_names_fit_and_differ(name in "[^/\\x00-\\x1f]{1,260}", n in 1u32..2000) {
            let name = cut(&name, NAME_MAX);
            let path = format!("d/{name}");
            let (one, next) = (numbered(&path, n), numbered(&path, n + 1));
            prop_assert!(one != path && one != next);
            let last = one.strip_prefix("d/").expect("in its folder");
            prop_assert!(!last.contains('/') && last.len() <= NAME_MAX);
        }
    }
}
