//! What no upload asks a server: what it can, what a folder holds, what time it has. The session
//! and the bounds are those of an upload; nothing on the server changes but a folder that
//! `make_folder` or `remove_folder` names. Foreign text is handed on as it came: escape it.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use suppaftp::{FtpError, Status};

use super::session::MADE;
use super::stream::{self, Transfer};
use super::{Quirk, Session, Trouble};
use crate::clock;
use crate::core::names::Phase;
use crate::sys::fence::Which;

/// The longest that a listing may take, however alive it is, where it only shows that listing works
/// or what is left under old names.
pub(super) const LISTING_BOUND: Duration = Duration::from_secs(120);

/// The longest listing, bytes: millions of files.
const LISTING_BYTES: usize = 256 << 20;

/// What FEAT answered (RFC 2389): labels in capitals, each with its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features(Vec<(String, String)>);

impl Features {
    /// Reads the lines between the first and the last one.
    pub(super) fn read(reply: &str) -> Self {
        let features = reply.lines().filter(|line| {
            !line.starts_with(|c: char| c.is_ascii_digit()) && !line.trim().is_empty()
        });
        let split = |line: &str| {
            let (label, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            (label.to_uppercase(), rest.trim().to_owned())
        };
        Self(features.map(split).collect())
    }

    /// What stands behind a label.
    pub(super) fn parameters(&self, label: &str) -> Option<&str> {
        let found = self.0.iter().find(|(l, _)| l == label);
        found.map(|(_, parameters)| parameters.as_str())
    }

    /// All labels, as they came, for a person; foreign text: escape it.
    pub fn labels(&self) -> String {
        let labels: Vec<&str> = self.0.iter().map(|(label, _)| label.as_str()).collect();
        labels.join(", ")
    }

    /// Whether the label is there; for `REST STREAM` also its first parameter.
    pub fn has(&self, label: &str) -> bool {
        let (label, parameter) = label.split_once(' ').unwrap_or((label, ""));
        let fits = |(l, p): &(String, String)| {
            l == label
                && (parameter.is_empty() || p.split(' ').any(|p| p.eq_ignore_ascii_case(parameter)))
        };
        self.0.iter().any(fits)
    }
}

/// What a listing of a folder showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// Lines, the folder itself and its parent left out where the server marks them (MLSD).
    pub entries: u64,
    /// The command that worked.
    pub by: &'static str,
    /// How the data connection was asked for.
    pub passive: &'static str,
}

impl Session {
    /// The greeting as it came.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Which TLS the connection has, for a person; none for plain FTP.
    pub fn agreed(&self) -> Option<&str> {
        self.agreed.as_deref()
    }

    /// The server's address.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.client.get_ref().peer_addr().ok()
    }

    /// Goes to the route's remote folder, which is not made.
    pub fn enter_existing_folder(&mut self) -> Result<(), Trouble> {
        let folder = self.setup.route.server.folder.clone();
        if folder.is_empty() {
            return Ok(());
        }
        self.change_folder(&folder)
    }

    /// The current folder, as CWD takes it.
    pub fn current_folder(&mut self) -> Result<String, Trouble> {
        let told = self.step("PWD", |client| client.custom_command("PWD", MADE))?;
        quoted(&String::from_utf8_lossy(&told.body)).ok_or_else(|| Trouble::Lost {
            phase: Phase::Reply,
            error: "PWD was answered without a folder".into(),
        })
    }

    /// Makes the route's remote folder and its parents and goes there. Those that were not there
    /// before are added to `made`, outermost first, whatever happens then.
    pub fn make_missing_folders(&mut self, made: &mut Vec<String>) -> Result<(), Trouble> {
        let folder = self.setup.route.server.folder.clone();
        let mut path = String::new();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            if !path.is_empty() || folder.starts_with('/') {
                path.push('/');
            }
            path.push_str(part);
            match self.command("MKD", &path, MADE) {
                Ok(_) => made.push(path.clone()),
                // It exists, or may not be made: the CWD below tells.
                Err(Trouble::Refused {
                    code: 500..=599, ..
                }) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        self.change_folder(&folder)
    }

    /// Removes folders that `make_missing_folders` made, innermost first, by a session that stands
    /// where they were made from. True if all are gone.
    pub fn remove_folders(&mut self, made: &[String]) -> Result<bool, Trouble> {
        let mut gone = true;
        for folder in made.iter().rev() {
            match self.step("RMD", |client| client.rmdir(folder)) {
                Ok(()) => {}
                Err(Trouble::Refused { code, .. }) if code != 421 => gone = false,
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(gone)
    }

    /// What the server can, which it is asked once; `None` if it does not know FEAT.
    pub fn features(&mut self) -> Result<Option<Arc<Features>>, Trouble> {
        if let Some(known) = self.setup.quirks.features() {
            return Ok(known);
        }
        // suppaftp's own `feat` waits for a second line where the reply has only one.
        let answered = self.step("FEAT", |client| {
            match client.custom_command("FEAT", &[Status::CommandOk]) {
                Err(FtpError::UnexpectedResponse(reply)) if reply.status == Status::System => {
                    Ok(reply)
                }
                other => other,
            }
        });
        let features = match answered {
            Ok(reply) => {
                let text = String::from_utf8_lossy(&reply.body);
                Some(Arc::new(Features::read(&text)))
            }
            Err(Trouble::Refused {
                code: 500 | 502 | 504,
                ..
            }) => None,
            // Some other reason than that it is not known: asked again when it is next needed.
            Err(Trouble::Refused {
                code: 500..=599, ..
            }) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        self.setup
            .quirks
            .note_features(features.clone(), clock::mono());
        Ok(features)
    }

    /// Finds out what an upload would find out only when it needs it: whether SIZE and REST are
    /// known. `absent` is a name that is not there.
    pub fn try_ways(&mut self, absent: &str) -> Result<(), Trouble> {
        self.absent(absent)?;
        match self.command("REST", "0", &[Status::RequestFilePending]) {
            Ok(_) => {}
            Err(Trouble::Refused {
                code: 500 | 502 | 504,
                text,
                ..
            }) => self.learn(Quirk::NoRest, &text),
            Err(Trouble::Refused { code, .. }) if code != 421 => {}
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }

    /// Lists the current folder: MLSD if `machine`, else or where it is refused LIST.
    pub fn list(&mut self, machine: bool) -> Result<Listing, Trouble> {
        if machine && !self.setup.quirks.has(Quirk::NoMlsd) {
            match self.list_by("MLSD") {
                Err(Trouble::Refused {
                    code: 500..=504,
                    text,
                    ..
                }) => self.learn(Quirk::NoMlsd, &text),
                other => return other,
            }
        }
        self.list_by("LIST")
    }

    fn list_by(&mut self, verb: &'static str) -> Result<Listing, Trouble> {
        let mut counter = Counter::default();
        self.read_listing(verb, verb, Some(LISTING_BOUND), |bytes| counter.take(bytes))?;
        Ok(Listing {
            entries: counter.entries(),
            by: verb,
            passive: self.passive(),
        })
    }

    /// Hands the text that the command `line` lists to `take`, as it comes; all of it within
    /// `bound`, if one is given.
    pub(super) fn read_listing(
        &mut self,
        verb: &'static str,
        line: &str,
        bound: Option<Duration>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        let stream = self.begin_data(verb, line)?;
        self.read_lines(stream, verb, bound, take)
    }

    /// Sends a command whose answer comes over a data connection, and opens that.
    pub(super) fn begin_data(
        &mut self,
        verb: &'static str,
        line: &str,
    ) -> Result<Transfer, Trouble> {
        self.by_passive(|session| session.open_data(verb, line))
    }

    fn open_data(&mut self, verb: &'static str, line: &str) -> Result<Transfer, Trouble> {
        let handle = Arc::clone(&self.setup.handle);
        self.offer()?;
        self.begin_data_command();
        handle.check()?;
        let opened = self
            .client
            .custom_data_command(line, &[Status::AboutToSend, Status::AlreadyOpen]);
        handle.ack();
        let opened = opened.map_err(|error| {
            self.line.withdraw();
            let begun = self.data.begun();
            let verb = if begun { verb } else { "EPSV/PASV" };
            let unsecured = self.line.take_trouble();
            let trouble = unsecured.unwrap_or_else(|| Trouble::from_ftp(&handle, verb, error));
            if handle.check().is_ok() {
                handle.fence.abandon(Which::Data);
            }
            trouble
        });
        opened.and_then(|(_, stream)| Trouble::unless_stopped(&handle, stream))
    }

    /// Reads a listing to its end, within bounds.
    fn read_lines(
        &mut self,
        mut stream: Transfer,
        verb: &'static str,
        bound: Option<Duration>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        let handle = Arc::clone(&self.setup.handle);
        let end = bound.map(|bound| clock::mono() + bound);
        let stall = self.setup.timers.stall;
        handle.begin_receiving(None);
        let mut bytes = 0;
        let mut buffer = [0u8; 16 * 1024];
        let read = loop {
            let left = end.map_or(stall, |end| end.saturating_sub(clock::mono()));
            // First: a new phase would forget that the one before was interrupted.
            if let Err(stop) = handle.check() {
                break Err(stop.into());
            }
            handle.begin(Phase::Transfer, Some(stall.min(left)));
            match stream.read(&mut buffer) {
                // The dead descriptor of an interrupt reads as an end, too.
                Ok(0) => break handle.check().map_err(Trouble::from),
                Ok(read) if bytes + read > LISTING_BYTES => {
                    break Err(Trouble::Source("the listing has no end".into()));
                }
                Ok(read) => {
                    bytes += read;
                    take(&buffer[..read]);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(Trouble::from_io(&handle, "reading the listing", &e)),
            }
        };
        if let Err(trouble) = read {
            if handle.check().is_ok() {
                // Or the drop would wait for a completion reply.
                handle.fence.abandon(Which::Data);
                handle.fence.abandon(Which::Control);
            }
            self.broken = true;
            return Err(trouble);
        }
        if let Ok(wire) = stream::of(&mut stream) {
            wire.say_goodbye();
        }
        // The keeper would hold the connection open, and the server waits for its end.
        handle.fence.release(Which::Data);
        handle.begin(Phase::FinalReply, Some(self.setup.timers.reply));
        let finished = stream.finish();
        handle.ack();
        finished.map_err(|e| Trouble::from_ftp(&handle, verb, e))?;
        Trouble::unless_stopped(&handle, ())
    }

    /// When the file was modified by the server's clock; `None` if the server does not say.
    pub fn modified(&mut self, name: &str) -> Result<Option<SystemTime>, Trouble> {
        let line = format!("MDTM {name}");
        match self.step("MDTM", |client| {
            client.custom_command(line, &[Status::File])
        }) {
            Ok(reply) => Ok(time_val(&last_line(&reply.body))),
            Err(Trouble::Refused { code, .. }) if code != 421 => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

/// Counts the lines of a listing without keeping them.
#[derive(Debug, Default)]
struct Counter {
    lines: u64,
    /// The beginning of the current line, where MLSD says `type=`.
    head: Vec<u8>,
}

impl Counter {
    /// Longer than the facts that a server puts before a name.
    const HEAD: usize = 256;

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.line(),
                b'\r' => {}
                byte if self.head.len() < Self::HEAD => self.head.push(*byte),
                _ => {}
            }
        }
    }

    fn line(&mut self) {
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        let own = head.contains("type=cdir;") || head.contains("type=pdir;");
        // LIST may begin with a sum of blocks.
        self.lines += u64::from(!head.is_empty() && !own && !head.starts_with("total "));
        self.head.clear();
    }

    fn entries(mut self) -> u64 {
        self.line();
        self.lines
    }
}

/// The line that ends a reply: what was asked for stands in it.
fn last_line(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    text.lines().next_back().unwrap_or_default().to_owned()
}

/// The folder in a reply to PWD: in quotes, its own quotes doubled (RFC 959 appendix II).
pub(super) fn quoted(reply: &str) -> Option<String> {
    let (_, rest) = reply.split_once('"')?;
    let (mut name, mut signs) = (String::new(), rest.chars());
    loop {
        match signs.next()? {
            '"' if signs.next() != Some('"') => return Some(name),
            sign => name.push(sign),
        }
    }
}

/// `213 YYYYMMDDHHMMSS[.f]`.
fn time_val(reply: &str) -> Option<SystemTime> {
    time_of(reply.get(4..)?)
}

/// `YYYYMMDDHHMMSS[.f]` in UTC (RFC 3659 section 2.3).
pub(super) fn time_of(text: &str) -> Option<SystemTime> {
    let digits = text.get(..14)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| &digits[from..to];
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    humantime::parse_rfc3339(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_listing_counts_what_is_in_the_folder() {
        let count = |parts: &[&str]| {
            let mut counter = Counter::default();
            parts.iter().for_each(|part| counter.take(part.as_bytes()));
            counter.entries()
        };
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&["total 8\r\n-rw-r--r-- 1 a\r\n", "drwx b"]), 2);
        let facts = "type=cdir;modify=1; .\r\nmodify=1;Type=pdir; ..\r\ntype=file;size=1; a\r\n";
        assert_eq!(count(&[facts]), 1);
        assert_eq!(count(&["a", "b\r", "\nc\n"]), 2);
    }

    #[test]
    fn a_folder_is_read_out_of_its_quotes() {
        assert_eq!(quoted("257 \"/a b\" is it\r\n").unwrap(), "/a b");
        assert_eq!(quoted("257 \"/a\"\"b\"").unwrap(), "/a\"b");
        assert_eq!(quoted("250 \"/open"), None);
        assert_eq!(quoted("257 /a"), None);
    }

    #[test]
    fn a_time_is_read_as_utc_or_not_at_all() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(time_val("213 19700102000001\r\n"), Some(at(86_401)));
        assert_eq!(time_val("213 20240229120000.123"), Some(at(1_709_208_000)));
        assert_eq!(time_val("213 20241301000000"), None);
        assert_eq!(time_val("213 now"), None);
    }

    #[test]
    fn features_are_read_whatever_the_form_of_the_reply() {
        let many = Features::read("211-Features:\r\n SIZE\r\n rest STREAM\r\nMDTM\r\n211 End\r\n");
        assert_eq!(many.labels(), "SIZE, REST, MDTM");
        assert!(many.has("REST STREAM"));
        assert_eq!(Features::read("211 no features\r\n"), Features::default());
    }

    #[test]
    fn a_feature_is_found_by_label_and_parameter() {
        let features = Features(vec![
            ("REST".into(), "STREAM".into()),
            ("SIZE".into(), String::new()),
        ]);
        assert!(features.has("SIZE") && features.has("REST STREAM"));
        assert!(!features.has("MDTM") && !features.has("REST OTHER"));
    }
}
