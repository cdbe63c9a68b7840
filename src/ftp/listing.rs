//! What a folder on the server holds: MLSD (RFC 3659 section 7) where the server has it, else LIST,
//! whose lines no standard defines. Names are foreign bytes: whoever takes one asks
//! `core::arrivals::refused` first.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use suppaftp::list::ListParser;

use super::{Quirk, Session, Trouble};

/// A longer line is none that a server means, bytes.
const LINE: usize = 8 * 1024;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, as far as the server tells.
    File,
    /// A folder, other than the listed one and its parent.
    Folder,
    /// A link, a device: nothing that is taken.
    Other,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as it came.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Bytes, where that is told.
    pub size: Option<u64>,
    /// When it was modified, seconds since the Unix epoch, where that is told.
    pub modified: Option<i64>,
    /// Whether that time is exact: LIST leaves out the year, or the time of day, and the zone.
    pub exact: bool,
}

impl Session {
    /// Hands what a folder below the remote one holds to `take`, as it comes. `bound`: how long the
    /// whole listing may take.
    pub fn entries_in(
        &mut self,
        folder: &str,
        bound: Option<Duration>,
        mut take: impl FnMut(Entry),
    ) -> Result<(), Trouble> {
        let wired = match folder {
            "" => String::new(),
            folder => format!(" {}", self.wire(folder)?),
        };
        if !self.quirks().has(Quirk::NoMlsd) {
            match self.entries_by("MLSD", &wired, bound, parse_facts, &mut take) {
                Err(Trouble::Refused {
                    code: 500..=504,
                    text,
                    ..
                }) => self.learn(Quirk::NoMlsd, &text),
                Err(Trouble::Refused { text, .. }) if says_empty(&text) => return Ok(()),
                other => return other,
            }
        }
        match self.entries_by("LIST", &wired, bound, parse_list, &mut take) {
            Err(Trouble::Refused { text, .. }) if says_empty(&text) => Ok(()),
            other => other,
        }
    }

    fn entries_by(
        &mut self,
        verb: &'static str,
        wired: &str,
        bound: Option<Duration>,
        parse: fn(&[u8]) -> Option<Entry>,
        take: &mut impl FnMut(Entry),
    ) -> Result<(), Trouble> {
        let mut lines = Lines::default();
        self.read_listing(verb, &format!("{verb}{wired}"), bound, |bytes| {
            lines.take(bytes, |line| parse(line).into_iter().for_each(&mut *take));
        })?;
        lines.end(|line| parse(line).into_iter().for_each(&mut *take));
        Ok(())
    }
}

/// Whether a refused listing only tells that there is nothing to list (450 or 550 with these words,
/// from several servers).
fn says_empty(reply: &str) -> bool {
    let reply = reply.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reply.contains(word));
    (reply.starts_with("450") || reply.starts_with("550"))
        && says(&["no files", "no entries", "is empty", "empty directory"])
}

/// Parts a listing into lines as it comes; one without end takes no memory.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(&mut each),
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => self.too_long = true,
            }
        }
    }

    fn end(&mut self, mut each: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        let whole = line.strip_suffix(b"\r").unwrap_or(&line);
        if !std::mem::take(&mut self.too_long) && !whole.is_empty() {
            each(whole);
        }
    }
}

/// `type=file;size=5;modify=20240229120000; name`; also a line of MLST, with a space before it.
pub(super) fn parse_facts(line: &[u8]) -> Option<Entry> {
    let line = line.strip_prefix(b" ").unwrap_or(line);
    let end = line.windows(2).position(|two| two == b"; ")?;
    let (facts, name) = (std::str::from_utf8(&line[..end]).ok()?, &line[end + 2..]);
    let mut entry = Entry {
        name: name.to_vec(),
        kind: Kind::File,
        size: None,
        modified: None,
        exact: true,
    };
    for fact in facts.split(';') {
        let (label, value) = fact.split_once('=')?;
        match &*label.to_ascii_lowercase() {
            "type" => {
                entry.kind = match &*value.to_ascii_lowercase() {
                    "file" => Kind::File,
                    "dir" => Kind::Folder,
                    // The folder itself and its parent.
                    "cdir" | "pdir" => return None,
                    _ => Kind::Other,
                }
            }
            "size" => entry.size = Some(value.parse().ok()?),
            "modify" => entry.modified = super::probe::time_of(value).and_then(seconds),
            _ => {}
        }
    }
    entry.exact = entry.modified.is_some();
    Some(entry)
}

/// A line as `ls -l` has it, or as Windows has it. A name that is not UTF-8 is told by its whole
/// line, which is none that is taken either.
fn parse_list(line: &[u8]) -> Option<Entry> {
    let text = String::from_utf8_lossy(line);
    let posix = ListParser::parse_posix(&text);
    let spaced = posix.is_ok();
    let file = posix.or_else(|_| ListParser::parse_dos(&text)).ok()?;
    let kind = match file.is_directory() {
        true if matches!(file.name(), "." | "..") => return None,
        true => Kind::Folder,
        false if file.is_file() => Kind::File,
        false => Kind::Other,
    };
    let name = match text {
        Cow::Borrowed(text) if spaced => with_its_spaces(text, file.name()).as_bytes().to_vec(),
        Cow::Borrowed(_) => file.name().as_bytes().to_vec(),
        Cow::Owned(_) => line.to_vec(),
    };
    Some(Entry {
        name,
        kind,
        size: Some(file.size() as u64),
        modified: seconds(file.modified()),
        exact: false,
    })
}

/// The name with the spaces that it begins with: `ls` puts one before it, the parser skips all.
fn with_its_spaces<'a>(text: &'a str, name: &'a str) -> &'a str {
    let Some(before) = text.strip_suffix(name) else {
        return name;
    };
    let spaces = before.len() - before.trim_end_matches(' ').len();
    &text[before.len() - spaces.saturating_sub(1)..]
}

/// Seconds since the Unix epoch.
pub(super) fn seconds(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|s| -s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: Kind, size: Option<u64>, modified: Option<i64>) -> Entry {
        Entry {
            name: name.into(),
            kind,
            size,
            modified,
            exact: modified.is_some(),
        }
    }

    #[test]
    fn facts_tell_files_and_folders_and_nothing_else() {
        let noon = Some(1_709_208_000);
        for (line, expected) in [
            (
                "type=file;size=5;modify=20240229120000.123; a; b",
                Some(entry("a; b", Kind::File, Some(5), noon)),
            ),
            (
                " Type=dir;Modify=20240229120000; d",
                Some(entry("d", Kind::Folder, None, noon)),
            ),
            (
                "type=file;unique=1; ../x",
                Some(entry("../x", Kind::File, None, None)),
            ),
            ("type=cdir;modify=20240229120000; .", None),
            ("type=pdir; ..", None),
            (
                "type=OS.unix=slink:/etc/passwd; l",
                Some(entry("l", Kind::Other, None, None)),
            ),
            ("type=file;size=many; x", None),
            ("total 5", None),
        ] {
            assert_eq!(parse_facts(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn lines_of_list_are_read_in_both_forms() {
        let of = |line: &[u8]| parse_list(line).map(|e| (e.name, e.kind, e.size, e.exact));
        let file = |name: &[u8], size| Some((name.to_vec(), Kind::File, Some(size), false));
        assert_eq!(
            of(b"-rw-r--r--   1 ftp ftp  1234 Nov 28 16:12 a b"),
            file(b"a b", 1234)
        );
        assert_eq!(
            of(b"-rw-r--r-- 1 0 0 7 Nov  5  2018 ../x"),
            file(b"../x", 7)
        );
        assert_eq!(
            of(b"-rw-r--r-- 1 0 0 7 Nov  5  2018   two  "),
            file(b"  two  ", 7)
        );
        assert_eq!(of(b"04-08-14  03:09PM  8,192 o.txt"), file(b"o.txt", 8192));
        assert_eq!(
            of(b"drwxr-xr-x 2 0 0 0 Nov  5  2018 d").map(|e| e.1),
            Some(Kind::Folder)
        );
        for none in [
            &b"total 8"[..],
            b"drwxr-xr-x 2 0 0 0 Nov  5  2018 ..",
            b"crw-rw-rw- 1 0 0 1, 3 Nov  5  2018 null",
        ] {
            assert_eq!(of(none), None);
        }
        let link = of(b"lrwxrwxrwx 1 0 0 7 Nov  5  2018 l -> /etc/passwd");
        assert_eq!(link, Some((b"l".to_vec(), Kind::Other, Some(7), false)));
        let foreign = b"-rw-r--r-- 1 0 0 7 Nov  5  2018 \xe9t\xe9";
        assert_eq!(of(foreign), file(foreign, 7));
    }

    #[test]
    fn a_refusal_that_tells_of_an_empty_folder_is_a_listing() {
        assert!(says_empty("550 No files found.") && says_empty("450 No files found"));
        for other in [
            "550 No such file or directory",
            "550 Permission denied",
            "421 no files",
        ] {
            assert!(!says_empty(other), "{other}");
        }
    }

    #[test]
    fn lines_come_in_pieces_and_endless_ones_are_left_out() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        let long = vec![b'x'; 3 * LINE];
        for part in [&b"one\r\ntw"[..], b"o\n\n", &long, b"\nthree"] {
            lines.take(part, |line| seen.push(line.to_vec()));
        }
        lines.end(|line| seen.push(line.to_vec()));
        assert_eq!(seen, [&b"one"[..], b"two", b"three"]);
    }
}
