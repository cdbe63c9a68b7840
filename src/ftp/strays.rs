//! What is left in a remote folder under temp names, and what time the server has. Listings are
//! read within bounds; names are foreign text.

use std::time::SystemTime;

use super::probe::LISTING_BOUND;
use super::publish::take_away;
use super::{Quirk, Session, Trouble};

/// Names taken from one listing; the rest is there at the next look, too.
const NAMES: usize = 100;
/// A longer line is no temp name with its facts, bytes.
const LINE: usize = 2048;

impl Session {
    /// Names in a folder below the remote one that `fits` takes, each with the folder before it.
    /// None where the server lists nothing: a look is no reason to fail.
    pub fn names_in(
        &mut self,
        folder: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, Trouble> {
        let wired = match folder {
            "" => String::new(),
            folder => format!(" {}", self.wire(folder)?),
        };
        // Temp names begin with a dot by default, which NLST alone leaves out.
        let ways = [("MLSD", "MLSD", true), ("NLST", "NLST -a", false)];
        let no_mlsd = self.quirks().has(Quirk::NoMlsd);
        for (verb, line, facts) in ways.into_iter().skip(usize::from(no_mlsd)) {
            let mut names = Names::new(facts, &fits);
            let line = format!("{line}{wired}");
            match self.read_listing(verb, &line, Some(LISTING_BOUND), |bytes| names.take(bytes)) {
                Ok(()) => return Ok(names.below(folder)),
                Err(Trouble::Refused { code, text, .. }) if code != 421 => {
                    if facts && matches!(code, 500 | 502 | 504) {
                        self.learn(Quirk::NoMlsd, &text);
                    }
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(Vec::new())
    }

    /// When a file below the remote folder was modified by the server's clock; `None` if it does
    /// not say.
    pub fn modified_below(&mut self, path: &str) -> Result<Option<SystemTime>, Trouble> {
        let path = self.wire(path)?;
        self.modified(&path)
    }

    /// The server's time, as it dates a file that is made now: an empty one under the temp name
    /// `temp`, which the journal has to have before.
    pub fn server_time(&mut self, temp: &str) -> Result<Option<SystemTime>, Trouble> {
        self.store_empty(temp)?;
        let now = self.modified_below(temp)?;
        take_away(self, temp)?;
        Ok(now)
    }
}

/// Picks names out of a listing as it comes.
struct Names<'a> {
    /// Facts stand before each name (MLSD).
    facts: bool,
    fits: &'a dyn Fn(&str) -> bool,
    line: Vec<u8>,
    found: Vec<String>,
}

impl<'a> Names<'a> {
    fn new(facts: bool, fits: &'a dyn Fn(&str) -> bool) -> Self {
        let (line, found) = (Vec::new(), Vec::new());
        Self {
            facts,
            fits,
            line,
            found,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                byte if self.line.len() <= LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Ok(text) = std::str::from_utf8(&line) else {
            return;
        };
        let text = text.strip_suffix('\r').unwrap_or(text);
        let name = if self.facts {
            // Whatever is no file is none of ours.
            text.split_once(' ')
                .filter(|(facts, _)| facts.to_ascii_lowercase().contains("type=file;"))
                .map(|(_, name)| name)
        } else {
            // Some servers put the folder before it.
            Some(text.rsplit_once('/').map_or(text, |(_, name)| name))
        };
        let room = self.found.len() < NAMES && line.len() <= LINE;
        if let Some(name) = name.filter(|name| room && !name.contains('/') && (self.fits)(name)) {
            self.found.push(name.to_owned());
        }
    }

    fn below(mut self, folder: &str) -> Vec<String> {
        self.end_line();
        let place = |name: String| match folder {
            "" => name,
            folder => format!("{folder}/{name}"),
        };
        self.found.into_iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(facts: bool, folder: &str, parts: &[&[u8]]) -> Vec<String> {
        let fits = |name: &str| name.ends_with(".part");
        let mut names = Names::new(facts, &fits);
        parts.iter().for_each(|part| names.take(part));
        names.below(folder)
    }

    #[test]
    fn names_are_picked_out_of_both_kinds_of_listings() {
        let facts: [&[u8]; 4] = [
            b"type=cdir;modify=1; .part\r\nType=file;size=1; a b.pa",
            b"rt\r\ntype=dir; c.part\r\ntype=file; d.txt\n",
            b"type=file; \xff.part\r\ntype=file; ../e.part\r\n",
            b"type=file; last.part",
        ];
        assert_eq!(found(true, "", &facts), ["a b.part", "last.part"]);
        assert_eq!(found(true, "x/y", &facts)[0], "x/y/a b.part");
        let plain: [&[u8]; 2] = [b"./a.part\r\nx/y/b.part\n", b"c.txt\n.d.part"];
        assert_eq!(found(false, "", &plain), ["a.part", "b.part", ".d.part"]);
    }

    #[test]
    fn a_listing_without_end_takes_no_memory() {
        let long = vec![b'x'; 3 * LINE];
        let lines = "type=file; a.part\n".repeat(2 * NAMES);
        let found = found(true, "", &[&long, b".part\n", lines.as_bytes()]);
        assert_eq!(found.len(), NAMES);
    }
}
