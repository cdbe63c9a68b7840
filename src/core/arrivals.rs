//! What a remote folder shows and what of it may be taken: which listed names are safe as names of
//! local files, and when a remote file is settled, that is, unchanged over two listings that are
//! far enough apart. It compares what it is told; the server's clock is never compared with ours.

use std::collections::HashMap;
use std::sync::Arc;

use super::Mono;

/// A version of a remote file, as far as the server tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Bytes.
    pub size: u64,
    /// When it was modified, seconds since the Unix epoch by the server; none: it does not say.
    pub modified: Option<i64>,
}

/// Seconds of a day.
const DAY: i64 = 86_400;

impl Version {
    /// Whether both can be the same version: what one of them does not know does not part them. A
    /// LIST shows only the day of what is old; then the day is all that is compared.
    pub fn agrees(&self, other: &Self) -> bool {
        let times = match (self.modified, other.modified) {
            (Some(a), Some(b)) => {
                let whole_day = |t: i64| t.rem_euclid(DAY) == 0;
                let same_day = a.div_euclid(DAY) == b.div_euclid(DAY);
                a == b || (same_day && (whole_day(a) || whole_day(b)))
            }
            _ => true,
        };
        self.size == other.size && times
    }
}

/// A file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Path below the remote folder, `/` between its parts.
    pub path: Arc<str>,
    /// Its version.
    pub version: Version,
}

/// Longest name of a local file, bytes.
const NAME_MAX: usize = 255;

/// Why a listed name must not become the name of a local file, if so. A server could name any
/// file of this machine otherwise.
pub fn refused(name: &[u8]) -> Option<&'static str> {
    let holds = |sign: &[u8]| name.iter().any(|byte| sign.contains(byte));
    if name.is_empty() || name == b"." || name == b".." {
        Some("it is empty, . or ..")
    } else if holds(b"/\\") {
        Some("it holds a / or a \\")
    } else if holds(b"\0\r\n") {
        Some("it holds a NUL or a line break")
    } else if name.len() > NAME_MAX {
        Some("it is longer than 255 bytes")
    } else {
        match std::str::from_utf8(name) {
            Err(_) => Some("it is not UTF-8"),
            Ok(text) if text.chars().any(char::is_control) => Some("it holds a control character"),
            Ok(_) => None,
        }
    }
}

/// The files of one remote folder that may still grow.
#[derive(Debug, Default)]
pub struct Settling {
    /// Each with the end of the first listing that showed this version.
    seen: HashMap<Arc<str>, (Version, Mono)>,
}

/// What a listing came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Files that may be taken, in the order of the listing.
    pub files: Vec<Arrival>,
    /// Some were seen for the first time: a listing more, as soon as they can have settled, is
    /// worth its cost. One that grows costs none.
    pub fresh: bool,
}

impl Settling {
    /// Takes a whole listing in, by when it began and ended; what it does not show is forgotten.
    pub fn listed(
        &mut self,
        files: Vec<Arrival>,
        settle: Mono,
        began: Mono,
        ended: Mono,
    ) -> Settled {
        let mut settled = Settled::default();
        let before = std::mem::take(&mut self.seen);
        for file in files {
            let since = match before.get(&file.path) {
                None => {
                    settled.fresh = true;
                    ended
                }
                Some((version, since)) if *version == file.version => *since,
                Some(_) => ended,
            };
            let rested = since != ended && began.saturating_sub(since) >= settle;
            if rested || settle.is_zero() {
                settled.files.push(file);
            } else {
                self.seen.insert(file.path, (file.version, since));
            }
        }
        settled
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SETTLE: Mono = Duration::from_secs(5);

    fn at(seconds: u64) -> Mono {
        Duration::from_secs(seconds)
    }

    fn file(size: u64) -> Arrival {
        let modified = Some(1_000);
        Arrival {
            path: "f".into(),
            version: Version { size, modified },
        }
    }

    fn shows(settling: &mut Settling, size: u64, began: u64) -> Settled {
        settling.listed(vec![file(size)], SETTLE, at(began), at(began + 1))
    }

    #[test]
    fn a_file_is_taken_once_two_listings_far_enough_apart_agree() {
        let mut settling = Settling::default();
        let first = shows(&mut settling, 1, 10);
        assert!(first.files.is_empty() && first.fresh);
        let early = shows(&mut settling, 1, 15);
        assert!(
            early.files.is_empty() && !early.fresh,
            "4 s after the end of the first"
        );
        assert_eq!(shows(&mut settling, 1, 16).files, [file(1)]);
        assert!(settling.is_empty());
    }

    #[test]
    fn a_file_that_grows_or_goes_away_begins_anew() {
        let mut settling = Settling::default();
        for began in [10, 20, 30] {
            assert!(shows(&mut settling, began, began).files.is_empty());
        }
        assert!(
            !shows(&mut settling, 99, 40).fresh,
            "it is known, and grows"
        );
        settling.listed(Vec::new(), SETTLE, at(50), at(51));
        assert!(settling.is_empty());
        assert!(shows(&mut settling, 99, 60).fresh);
    }

    #[test]
    fn without_a_time_to_settle_a_file_is_taken_at_once() {
        let mut settling = Settling::default();
        let settled = settling.listed(vec![file(1)], Mono::ZERO, at(1), at(2));
        assert_eq!(settled.files, [file(1)]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            &b""[..],
            b".",
            b"..",
            b"../x",
            b"/etc/passwd",
            b"a/b",
            b"a\\b",
            b"..\\x",
            b"a\0b",
            b"a\rb",
            b"a\nb",
            b"a\x1bb",
            b"\xff",
            &[b'x'; 256],
        ] {
            assert!(refused(name).is_some(), "{name:?}");
        }
        for name in [
            &b"a"[..],
            b"...",
            b".x",
            b"a b",
            b"~",
            b"-x",
            "\u{e9}".as_bytes(),
        ] {
            assert_eq!(refused(name), None, "{name:?}");
        }
    }

    #[test]
    fn versions_agree_as_far_as_they_are_told() {
        let of = |size, modified| Version { size, modified };
        let (noon, midnight) = (Some(5 * DAY + 43_200), Some(5 * DAY));
        for (a, b, agree) in [
            (of(1, noon), of(1, noon), true),
            (of(1, noon), of(2, noon), false),
            (of(1, noon), of(1, None), true),
            (of(1, noon), of(1, midnight), true),
            (of(1, noon), of(1, Some(6 * DAY)), false),
            (of(1, noon), of(1, Some(5 * DAY + 43_201)), false),
        ] {
            assert_eq!((a.agrees(&b), b.agrees(&a)), (agree, agree), "{a:?} {b:?}");
        }
    }

    proptest! {
        /// Whatever the listings show, a file is only taken in a version that two of them, at
        /// least `settle` apart, have shown with no other one between them.
        #[test]
        fn nothing_is_taken_that_did_not_rest(shown in prop::collection::vec((0u64..3, 0u64..9), 1..30)) {
            let (mut settling, mut now) = (Settling::default(), 0);
            let mut unchanged: Option<(u64, u64)> = None;
            for (size, pause) in shown {
                now += pause;
                let (began, ended) = (now, now + 1);
                now = ended;
                let since = match unchanged {
                    Some((before, since)) if before == size => since,
                    _ => ended,
                };
                unchanged = Some((size, since));
                let taken = !settling.listed(vec![file(size)], SETTLE, at(began), at(ended)).files.is_empty();
                if taken {
                    prop_assert!(began - since >= 5, "{began} {since}");
                    unchanged = None;
                }
            }
        }
    }
}
