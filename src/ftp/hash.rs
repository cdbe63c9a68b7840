//! Compares what the server has with what was sent, by a hash that the server tells of its file:
//! HASH (draft-bryan-ftp-hash-08), or one of the older XSHA256, XSHA1, XMD5 and XCRC; which of
//! them it has stands in its FEAT, asked once a session and only if it is needed. The source is
//! read again for it (it was read a moment ago: the page cache has most of it), in chunks, each a
//! safe point of a phase that must move.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::Digest;
use slog::warn;
use suppaftp::Status;

use super::transfer::unchanged;
use super::{Features, Session, Trouble};
use crate::config::Verify;
use crate::core::names::Phase;
use crate::pulse::{Attempt, WorkerHandle};
use crate::spool::Stamp;

/// Bytes hashed between two safe points: well below a millisecond each.
const CHUNK: usize = 256 * 1024;

/// An algorithm that both sides know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
    Sha1,
    Md5,
    Crc32,
}

use Algorithm::{Crc32, Md5, Sha1, Sha256, Sha512};

/// The names that HASH has for them, the best first.
const NAMES: [(&str, Algorithm); 5] = [
    ("SHA-256", Sha256),
    ("SHA-512", Sha512),
    ("SHA-1", Sha1),
    ("MD5", Md5),
    ("CRC32", Crc32),
];
/// The commands that were before HASH, the best first.
const OLDER: [(&str, Algorithm); 5] = [
    ("XSHA256", Sha256),
    ("XSHA1", Sha1),
    ("XSHA", Sha1),
    ("XMD5", Md5),
    ("XCRC", Crc32),
];

/// How a server tells the hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashing {
    verb: &'static str,
    name: &'static str,
    algorithm: Algorithm,
    /// Whether the server has another one chosen at first.
    choose: bool,
}

impl Hashing {
    /// The best that a server offers.
    fn of(features: &Features) -> Option<Self> {
        let offered = features.parameters("HASH").unwrap_or_default();
        let offered: Vec<&str> = offered.split(';').map(str::trim).collect();
        let by_hash = NAMES.iter().find_map(|(name, algorithm)| {
            let is = |offer: &&str| offer.trim_end_matches('*').eq_ignore_ascii_case(name);
            offered.iter().copied().find(is).map(|offer| Self {
                verb: "HASH",
                name,
                algorithm: *algorithm,
                choose: !offer.ends_with('*'),
            })
        });
        let older = || {
            let found = OLDER.iter().find(|(verb, _)| features.has(verb));
            found.map(|(verb, algorithm)| Self {
                verb,
                name: verb,
                algorithm: *algorithm,
                choose: false,
            })
        };
        by_hash.or_else(older)
    }

    /// For a person: the command and the algorithm.
    pub fn shown(&self) -> String {
        if self.verb == "HASH" {
            format!("HASH {}", self.name)
        } else {
            self.verb.into()
        }
    }
}

/// A hash under way.
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Crc32(crc32fast::Hasher),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Sha256 => Self::Sha256(sha2::Sha256::new()),
            Sha512 => Self::Sha512(sha2::Sha512::new()),
            Sha1 => Self::Sha1(sha1::Sha1::new()),
            Md5 => Self::Md5(md5::Md5::new()),
            Crc32 => Self::Crc32(crc32fast::Hasher::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
            Self::Sha1(hash) => hash.update(bytes),
            Self::Md5(hash) => hash.update(bytes),
            Self::Crc32(hash) => hash.update(bytes),
        }
    }

    /// In lower-case hexadecimal digits.
    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha512(hash) => hex(&hash.finalize()),
            Self::Sha1(hash) => hex(&hash.finalize()),
            Self::Md5(hash) => hex(&hash.finalize()),
            Self::Crc32(hash) => hex(&hash.finalize().to_be_bytes()),
        }
    }
}

/// The hash in a reply, of as many digits as `like`: a word of its own, whatever stands around it.
/// The file's name, which many replies repeat, is not looked at. A CRC may come without its
/// leading zeros.
fn told(reply: &str, name: &str, like: &str) -> Option<String> {
    let reply = without(reply, name);
    // After the reply's code.
    let words = || {
        let all = reply.get(4..).unwrap_or_default();
        let words = all.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let short = |w: &&str| like.len() == 8 && w.len() < 8;
    // The draft has the range of bytes before the hash, and nobody anything behind it.
    let whole = words().rfind(|w| w.len() == like.len());
    let found = whole.or_else(|| words().rfind(short))?;
    Some(format!("{:0>8}", found.to_ascii_lowercase()))
}

/// The text without the name, where that stands by itself: a short name can be a part of a hash.
fn without(text: &str, name: &str) -> String {
    let (mut rest, mut from) = (String::new(), 0);
    for (at, _) in text.match_indices(name) {
        let end = at + name.len();
        let before = text[..at].chars().next_back();
        let after = text[end..].chars().next();
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        if !joined(before) && !joined(after) {
            rest.push_str(&text[from..at]);
            rest.push(' ');
            from = end;
        }
    }
    rest.push_str(&text[from..]);
    rest
}

impl Session {
    /// How the server tells hashes; asks it once. The inner error names its features.
    pub fn hashing(&mut self) -> Result<Result<Hashing, String>, Trouble> {
        if let Some(known) = &self.hash {
            return Ok(known.clone());
        }
        let features = self.features()?.unwrap_or_default();
        let hash = Hashing::of(&features).ok_or_else(|| features.labels());
        if self.quirks().features().is_some() {
            self.hash = Some(hash.clone());
        }
        Ok(hash)
    }

    /// The server's hash of a file of its own; none if its reply holds none like `ours`.
    fn ask_hash(&mut self, by: Hashing, temp: &str, ours: &str) -> Result<Option<String>, Trouble> {
        if by.choose {
            self.command("OPTS", &format!("HASH {}", by.name), &[Status::CommandOk])?;
            self.hash = Some(Ok(Hashing {
                choose: false,
                ..by
            }));
        }
        let name = self.wire(temp)?;
        let line = format!("{} {name}", by.verb);
        let handle = Arc::clone(&self.setup.handle);
        let timers = &self.setup.timers;
        // The server reads the whole file before it answers.
        handle.begin(Phase::Reply, Some(timers.reply.max(timers.compute)));
        handle.check()?;
        let expected = [Status::File, Status::RequestedFileActionOk];
        let reply = self.client.custom_command(line, &expected);
        let reply = reply.map_err(|e| Trouble::from_ftp(&handle, by.verb, e));
        handle.ack();
        let reply = Trouble::unless_stopped(&handle, reply?)?;
        Ok(told(&String::from_utf8_lossy(&reply.body), &name, ours))
    }
}

/// Compares the hashes where the route wants it, and where a file was put together from parts and
/// the server can: no other check sees a hole in it.
pub(super) fn verify(
    session: &mut Session,
    file: &File,
    stamp: Stamp,
    attempt: &Attempt,
    resumed: bool,
) -> Result<(), Trouble> {
    let wanted = session.setup.route.verify == Verify::Hash;
    if !wanted && !resumed {
        return Ok(());
    }
    match compare(session, file, stamp, &attempt.storing().0) {
        Err(Trouble::NoHash(_)) if !wanted => Ok(()),
        Err(trouble @ Trouble::HashDiffers { .. }) => {
            // Even if it cannot be taken away.
            attempt.spoilt();
            Err(trouble)
        }
        Err(Trouble::Refused { code, text, .. }) if code != 421 && !wanted => {
            session.hash = Some(Err(text.clone()));
            warn!(session.setup.log, "the server tells no hash after all"; "error" => text,
                "next" => "the sizes are equal; the resumed file is published");
            Ok(())
        }
        compared => compared,
    }
}

/// Compares that version of the source with what stands under `name`.
pub(super) fn compare(
    session: &mut Session,
    file: &File,
    stamp: Stamp,
    name: &str,
) -> Result<(), Trouble> {
    let by = session.hashing()?.map_err(Trouble::NoHash)?;
    let sent = hash(&session.setup.handle, file, stamp, by.algorithm)?;
    match session.ask_hash(by, name, &sent)? {
        Some(found) if found == sent => Ok(()),
        found => Err(Trouble::HashDiffers {
            by: by.name,
            sent,
            found: found.unwrap_or_else(|| "no such hash".into()),
        }),
    }
}

/// Our own hash of the version that was sent.
fn hash(
    handle: &WorkerHandle,
    file: &File,
    stamp: Stamp,
    algorithm: Algorithm,
) -> Result<String, Trouble> {
    handle.begin(Phase::Hash, None);
    let unreadable = |e: io::Error| Trouble::Source(format!("reading the source failed: {e}"));
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0u8; CHUNK];
    let mut offset = 0;
    while offset < stamp.size {
        handle.check()?;
        let want = usize::try_from(stamp.size - offset).unwrap_or(CHUNK);
        match file.read_at(&mut buffer[..want.min(CHUNK)], offset) {
            Ok(0) => return Err(Trouble::Changed),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                offset += read as u64;
                handle.ack();
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(e)),
        }
    }
    unchanged(file, stamp)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: [(Algorithm, &str); 5] = [
        (
            Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (Crc32, "352441c2"),
    ];

    #[test]
    fn each_algorithm_gives_the_known_hash() {
        for (algorithm, known) in ABC {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.finish(), known, "{algorithm:?}");
        }
    }

    #[test]
    fn a_hash_is_found_in_whatever_form_a_reply_has() {
        let sha = ABC[2].1;
        let upper = sha.to_uppercase();
        for reply in [
            format!("213 SHA-1 0-3 {sha} .x.part"),
            format!("250 {upper}\r\n"),
            format!("250 XSHA1 {upper}"),
            format!("250 \".x.part\" {sha}"),
            format!("250-XSHA1\r\n {sha}\r\n250 done\r\n"),
        ] {
            assert_eq!(
                told(&reply, ".x.part", sha).as_deref(),
                Some(sha),
                "{reply}"
            );
        }
        assert_eq!(told("250 0 AB12", "x", "0000ab12").unwrap(), "0000ab12");
        assert_eq!(
            told("250 352441C2 added", "x", "352441c2").unwrap(),
            "352441c2"
        );
        let named = format!("250 {} {}", &sha[1..], sha);
        assert_eq!(told(&named, sha, sha), None, "the name is no hash");
        assert_eq!(told("25", "x", sha), None);
        let short = format!("213 SHA-1 0-3 {sha} a");
        assert_eq!(told(&short, "a", sha).as_deref(), Some(sha), "{short}");
    }

    #[test]
    fn the_best_offer_is_taken() {
        let of = |lines: &str| {
            let features = Features::read(&format!("211-\r\n{lines}211 End\r\n"));
            Hashing::of(&features).map(|h| (h.shown(), h.choose))
        };
        let hash = " XCRC\r\n HASH CRC32;MD5;SHA-1*;SHA-256\r\n XSHA256\r\n";
        assert_eq!(of(hash), Some(("HASH SHA-256".into(), true)));
        assert_eq!(of(" HASH sha-1*\r\n"), Some(("HASH SHA-1".into(), false)));
        let older = " XCRC \"filename\" \"start\"\r\n XMD5\r\n XSHA1\r\n HASH TIGER\r\n";
        assert_eq!(of(older), Some(("XSHA1".into(), false)));
        assert_eq!(of(" SIZE\r\n"), None);
    }
}
