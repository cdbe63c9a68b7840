//! The faults by name: the stable kebab-case names for `--fault NAME`, each with its default
//! numbers, what a client is expected to see of it, and one line for people.

use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind, Step};
use crate::core::names::Cause;

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
    /// The cause that it should name, where it finds a deadlock or a timeout.
    pub cause: Option<Cause>,
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
        cause: None,
        about,
    }
}

const fn deadlock(name: &'static str, kind: Kind, cause: Cause, about: &'static str) -> Named {
    Named {
        cause: Some(cause),
        ..named(name, kind, Expected::Deadlock, about)
    }
}

const fn timeout(name: &'static str, kind: Kind, cause: Cause, about: &'static str) -> Named {
    Named {
        cause: Some(cause),
        ..named(name, kind, Expected::Timeout, about)
    }
}

const fn error(name: &'static str, kind: Kind, about: &'static str) -> Named {
    named(name, kind, Expected::Error, about)
}

const fn success(name: &'static str, kind: Kind, about: &'static str) -> Named {
    named(name, kind, Expected::Success, about)
}

use Cause::{NoDataConnection, PathDead, SilentServer, ZeroWindow};

#[rustfmt::skip]
const NAMES: &[Named] = &[
    deadlock("stop-reading", Kind::StopReading { after: MID }, ZeroWindow, "the peer stops reading in mid-file: its window closes"),
    deadlock("path-dead-transfer", Kind::DeadPath { after: MID }, PathDead, "no packet comes through any more in mid-file"),
    deadlock("path-dead-reply", Kind::DeadPathAt(Step::Stor), PathDead, "no packet comes through any more after STOR"),
    deadlock("path-dead-final", Kind::DeadPathAt(Step::Final), PathDead, "all data is read, then no packet comes through any more"),
    timeout("no-greeting", Kind::NoReply(Step::Greeting), SilentServer, "the connection is accepted, no greeting comes"),
    timeout("no-reply-user", Kind::NoReply(Step::User), SilentServer, "no reply to USER"),
    timeout("no-reply-pass", Kind::NoReply(Step::Pass), SilentServer, "no reply to PASS"),
    timeout("no-reply-epsv", Kind::NoReply(Step::Epsv), SilentServer, "no reply to EPSV or PASV"),
    timeout("no-reply-stor", Kind::NoReply(Step::Stor), SilentServer, "no 150 after STOR"),
    timeout("silent-226", Kind::NoReply(Step::Final), SilentServer, "all data is read, no final reply comes"),
    timeout("no-reply-size", Kind::NoReply(Step::Size), SilentServer, "no reply to SIZE"),
    timeout("no-reply-rnfr", Kind::NoReply(Step::Rnfr), SilentServer, "no reply to RNFR"),
    timeout("no-reply-rnto", Kind::NoReply(Step::Rnto), SilentServer, "no reply to RNTO, which is not executed"),
    timeout("rnto-done-no-reply", Kind::RntoDoneNoReply, SilentServer, "no reply to RNTO, which is executed"),
    timeout("data-not-accepted", Kind::DataNotAccepted, NoDataConnection, "the data port answers no SYN"),
    error("data-refused", Kind::DataRefused, "the data port is closed"),
    success("trickle", Kind::Trickle { after: 0, bytes_per_second: 64 * 1024 }, "the peer reads slowly"),
    success("late-226", Kind::Late226(Duration::from_secs(5)), "the final reply comes late, but within its timer"),
    error("reset-mid-file", Kind::Reset { after: MID, silent: false }, "the data connection is reset in mid-file, then 426"),
    error("reset-mid-file-silent", Kind::Reset { after: MID, silent: true }, "the data connection is reset in mid-file, no reply"),
    error("close-mid-file", Kind::Close { after: MID, silent: false }, "the data connection is closed in mid-file, then 426"),
    error("close-mid-file-silent", Kind::Close { after: MID, silent: true }, "the data connection is closed in mid-file, no reply"),
    error("control-drop", Kind::ControlDrop { after: MID }, "the control connection is closed in mid-file"),
    error("stor-421", Kind::StorReply(421), "421 to STOR, and the session ends"),
    error("stor-450", Kind::StorReply(450), "450 to STOR: file busy"),
    error("stor-452", Kind::StorReply(452), "452 to STOR: no space"),
    error("stor-550", Kind::StorReply(550), "550 to STOR: permission denied"),
    error("stor-552", Kind::StorReply(552), "552 to STOR: quota exceeded"),
    error("stor-553", Kind::StorReply(553), "553 to STOR: name not allowed"),
    error("mid-file-452", Kind::MidReply { code: 452, after: MID }, "the disk is full in mid-file"),
    error("mid-file-552", Kind::MidReply { code: 552, after: MID }, "the quota is exceeded in mid-file"),
    error("garbage-reply", Kind::Garbage(Step::Stor), "the reply to STOR is garbage"),
    timeout("endless-reply", Kind::Endless(Step::Stor), SilentServer, "the reply to STOR never ends"),
    timeout("drip-greeting", Kind::Drip { step: Step::Greeting, every: SECOND }, SilentServer, "the greeting comes one byte a second"),
    timeout("drip-reply", Kind::Drip { step: Step::Stor, every: SECOND }, SilentServer, "the reply to STOR comes one byte a second"),
    success("wrong-pasv", Kind::WrongPasv, "EPSV is refused, PASV names a foreign address, which is ignored"),
    success("epsv-refused", Kind::EpsvRefused, "EPSV is refused, PASV works"),
    error("login-refused", Kind::LoginRefused, "530 to PASS"),
    error("seats", Kind::Seats { max: 0 }, "421 instead of a greeting: too many sessions"),
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
            let found_by_us = matches!(entry.expected, Expected::Deadlock | Expected::Timeout);
            assert_eq!(entry.cause.is_some(), found_by_us, "{}", entry.name);
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
