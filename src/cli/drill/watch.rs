//! What became of the final name, from the order of the server's own events: was it ever opened
//! for writing, did anything come under it that had not been read to its end, how often did it
//! change. The lab server is the only writer below its root, so this misses nothing.

use std::collections::BTreeMap;

use crate::lab::Event;

/// What the events tell of one final name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FinalName {
    /// A part of the file stood under it.
    pub torn: bool,
    /// How often a file came under it.
    pub published: u32,
}

/// Reads the events, in their order, of a file of `size` bytes whose final name is `path`.
pub fn final_name(events: &[Event], path: &str, size: u64) -> FinalName {
    let mut whole: BTreeMap<&str, bool> = BTreeMap::new();
    let mut found = FinalName::default();
    for event in events {
        match event {
            Event::Storing { path: at, .. } => {
                whole.insert(at, false);
                found.torn |= at == path;
            }
            Event::Stored {
                path: at, bytes, ..
            } => drop(whole.insert(at, *bytes == size)),
            Event::Renamed { from, to, .. } => {
                let is_whole = whole.remove(from.as_str()).unwrap_or(false);
                whole.insert(to, is_whole);
                if to == path {
                    found.published += 1;
                    found.torn |= !is_whole;
                }
            }
            Event::Deleted { path: at, .. } => drop(whole.remove(at.as_str())),
            Event::SessionOpened { .. }
            | Event::LoggedIn { .. }
            | Event::Command { .. }
            | Event::Struck { .. }
            | Event::Thawed { .. }
            | Event::Secured { .. }
            | Event::DataConnected { .. }
            | Event::DataEnded { .. }
            | Event::Ended { .. } => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storing(path: &str) -> Event {
        Event::Storing {
            session: 1,
            path: path.into(),
        }
    }

    fn stored(path: &str, bytes: u64) -> Event {
        Event::Stored {
            session: 1,
            path: path.into(),
            bytes,
        }
    }

    fn renamed(from: &str, to: &str) -> Event {
        Event::Renamed {
            session: 1,
            from: from.into(),
            to: to.into(),
        }
    }

    fn seen(events: &[Event]) -> (bool, u32) {
        let found = final_name(events, "/f", 9);
        (found.torn, found.published)
    }

    #[test]
    fn a_whole_file_under_a_temp_name_is_published_whole() {
        let events = [
            storing("/.t"),
            stored("/.t", 9),
            renamed("/.t", "/.u"),
            renamed("/.u", "/f"),
        ];
        assert_eq!(seen(&events), (false, 1));
    }

    #[test]
    fn a_part_under_the_final_name_is_torn_however_it_came_there() {
        assert_eq!(seen(&[storing("/f"), stored("/f", 9)]), (true, 0));
        assert_eq!(seen(&[storing("/.t"), renamed("/.t", "/f")]), (true, 1));
        let short = [storing("/.t"), stored("/.t", 8), renamed("/.t", "/f")];
        assert_eq!(seen(&short), (true, 1));
    }
}
