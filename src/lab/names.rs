//! The faults by name: the stable kebab-case names for `--fault NAME`, each with its default
//! numbers, what a client is expected to see of it, and one line for people.

use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind, Step};

/// What a client with a heartbeat and timers is expected to see of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A wedge inside the transfer that no timer covers.
    Deadlock,
    /// A wait for one event that a timer ends.
    Timeout,
    /// A failure that the server or the kernel reports.
    Error,
    /// Nothing but patience: the transfer succeeds.
    Success,
}

/// A fault as it is offered by name.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// Its stable name.
    pub name: &'static str,
    /// The kind with its default numbers.
    pub kind: Kind,
    /// What a client is expected to see.
    pub expected: Expected,
    /// One line for people.
    pub about: &'static str,
}

/// No fault has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault {
    /// What was asked for.
    pub name: String,
    /// The name it resembles most.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no fault is called {:?}", self.name)?;
        match self.nearest {
            Some(near) => write!(f, "; did you mean {near:?}?"),
            None => {
                let names: Vec<_> = NAMES.iter().map(|n| n.name).collect();
                write!(f, "; choose one of {}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for UnknownFault {}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deadlock => "deadlock",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Success => "success",
        })
    }
}

/// Where in a file the named mid-file faults strike: early, so that small files meet them too.
const MID: u64 = 16 * 1024;
const SECOND: Duration = Duration::from_secs(1);

const fn named(name: &'static str, kind: Kind, expected: Expected, about: &'static str) -> Named {
    Named {
        name,
        kind,
        expected,
        about,
    }
}

use Expected::{Deadlock, Error, Success, Timeout};

#[rustfmt::skip]
const NAMES: &[Named] = &[
    named("stop-reading", Kind::StopReading { after: MID }, Deadlock, "the peer stops reading in mid-file: its window closes"),
    named("no-greeting", Kind::NoReply(Step::Greeting), Timeout, "the connection is accepted, no greeting comes"),
    named("no-reply-user", Kind::NoReply(Step::User), Timeout, "no reply to USER"),
    named("no-reply-pass", Kind::NoReply(Step::Pass), Timeout, "no reply to PASS"),
    named("no-reply-epsv", Kind::NoReply(Step::Epsv), Timeout, "no reply to EPSV or PASV"),
    named("no-reply-stor", Kind::NoReply(Step::Stor), Timeout, "no 150 after STOR"),
    named("silent-226", Kind::NoReply(Step::Final), Timeout, "all data is read, no final reply comes"),
    named("no-reply-size", Kind::NoReply(Step::Size), Timeout, "no reply to SIZE"),
    named("no-reply-rnfr", Kind::NoReply(Step::Rnfr), Timeout, "no reply to RNFR"),
    named("no-reply-rnto", Kind::NoReply(Step::Rnto), Timeout, "no reply to RNTO, which is not executed"),
    named("rnto-done-no-reply", Kind::RntoDoneNoReply, Timeout, "no reply to RNTO, which is executed"),
    named("data-not-accepted", Kind::DataNotAccepted, Timeout, "the data port answers no SYN"),
    named("data-refused", Kind::DataRefused, Error, "the data port is closed"),
    named("trickle", Kind::Trickle { after: 0, bytes_per_second: 64 * 1024 }, Success, "the peer reads 64 KiB/s"),
    named("late-226", Kind::Late226(Duration::from_secs(5)), Success, "the final reply comes 5 s late"),
    named("reset-mid-file", Kind::Reset { after: MID, silent: false }, Error, "the data connection is reset in mid-file, then 426"),
    named("reset-mid-file-silent", Kind::Reset { after: MID, silent: true }, Error, "the data connection is reset in mid-file, no reply"),
    named("close-mid-file", Kind::Close { after: MID, silent: false }, Error, "the data connection is closed in mid-file, then 426"),
    named("close-mid-file-silent", Kind::Close { after: MID, silent: true }, Error, "the data connection is closed in mid-file, no reply"),
    named("control-drop", Kind::ControlDrop { after: MID }, Error, "the control connection is closed in mid-file"),
    named("stor-421", Kind::StorReply(421), Error, "421 to STOR, and the session ends"),
    named("stor-450", Kind::StorReply(450), Error, "450 to STOR: file busy"),
    named("stor-452", Kind::StorReply(452), Error, "452 to STOR: no space"),
    named("stor-550", Kind::StorReply(550), Error, "550 to STOR: permission denied"),
    named("stor-552", Kind::StorReply(552), Error, "552 to STOR: quota exceeded"),
    named("stor-553", Kind::StorReply(553), Error, "553 to STOR: name not allowed"),
    named("mid-file-452", Kind::MidReply { code: 452, after: MID }, Error, "the disk is full in mid-file"),
    named("mid-file-552", Kind::MidReply { code: 552, after: MID }, Error, "the quota is exceeded in mid-file"),
    named("garbage-reply", Kind::Garbage(Step::Stor), Error, "the reply to STOR is garbage"),
    named("endless-reply", Kind::Endless(Step::Stor), Timeout, "the reply to STOR never ends"),
    named("drip-greeting", Kind::Drip { step: Step::Greeting, every: SECOND }, Timeout, "the greeting comes one byte a second"),
    named("drip-reply", Kind::Drip { step: Step::Stor, every: SECOND }, Timeout, "the reply to STOR comes one byte a second"),
    named("wrong-pasv", Kind::WrongPasv, Error, "EPSV is refused, PASV names a foreign address"),
    named("epsv-refused", Kind::EpsvRefused, Success, "EPSV is refused, PASV works"),
    named("login-refused", Kind::LoginRefused, Error, "530 to PASS"),
    named("seats", Kind::Seats { max: 0 }, Error, "421 instead of a greeting: too many sessions"),
];

impl Fault {
    /// The fault with this name and its default numbers, on the first occasion, without an end.
    pub fn from_name(name: &str) -> Result<Self, UnknownFault> {
        if let Some(found) = NAMES.iter().find(|n| n.name == name) {
            return Ok(Self::new(found.kind));
        }
        let nearest = NAMES
            .iter()
            .map(|n| (strsim::jaro_winkler(n.name, name), n.name))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.8)
            .map(|(_, near)| near);
        Err(UnknownFault {
            name: name.to_owned(),
            nearest,
        })
    }

    /// Every fault that has a name; the first one is the demo's default.
    pub fn names() -> &'static [Named] {
        NAMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_leads_to_the_kind_that_bears_it() {
        for (i, entry) in NAMES.iter().enumerate() {
            assert_eq!(entry.kind.name(), entry.name);
            assert_eq!(Fault::from_name(entry.name).unwrap().kind, entry.kind);
            assert!(
                NAMES[..i].iter().all(|other| other.name != entry.name),
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_one_or_with_all() {
        let near = Fault::from_name("stop-readin").unwrap_err();
        assert_eq!(near.nearest, Some("stop-reading"));
        assert!(
            Fault::from_name("zzz")
                .unwrap_err()
                .to_string()
                .contains("silent-226")
        );
    }
}
