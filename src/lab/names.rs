//! The faults by name: the stable kebab-case names for `--fault NAME`, each with its default
//! numbers, what a client is expected to see of it, and one line for people.

use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind};
use super::step::Step;
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

/// What must be so for a fault to strike at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any upload.
    Nothing,
    /// Passive mode.
    Passive,
    /// Active mode.
    Active,
    /// TLS.
    Tls,
    /// A download or a listing.
    Download,
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
    /// When it strikes.
    pub needs: Needs,
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
                let names: Vec<_> = every().map(|n| n.name).collect();
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
        needs: Needs::Nothing,
        cause: None,
        about,
    }
}

/// With what it needs.
const fn needs(needs: Needs, named: Named) -> Named {
    Named { needs, ..named }
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
    needs(Needs::Passive, timeout("no-reply-epsv", Kind::NoReply(Step::Epsv), SilentServer, "no reply to EPSV or PASV")),
    timeout("no-reply-stor", Kind::NoReply(Step::Stor), SilentServer, "no 150 after STOR"),
    timeout("silent-226", Kind::NoReply(Step::Final), SilentServer, "all data is read, no final reply comes"),
    timeout("no-reply-size", Kind::NoReply(Step::Size), SilentServer, "no reply to SIZE"),
    timeout("no-reply-rnfr", Kind::NoReply(Step::Rnfr), SilentServer, "no reply to RNFR"),
    timeout("no-reply-rnto", Kind::NoReply(Step::Rnto), SilentServer, "no reply to RNTO, which is not executed"),
    timeout("rnto-done-no-reply", Kind::RntoDoneNoReply, SilentServer, "no reply to RNTO, which is executed"),
    needs(Needs::Passive, timeout("data-not-accepted", Kind::DataNotAccepted, NoDataConnection, "the data port answers no SYN")),
    needs(Needs::Passive, error("data-refused", Kind::DataRefused, "the data port is closed")),
    success("trickle", Kind::Trickle { after: 0, bytes_per_second: 64 * 1024 }, "the peer reads slowly"),
    success("late-226", Kind::Late226(Duration::from_secs(5)), "the final reply comes late, but within its timer"),
    error("reset-mid-file", Kind::Reset { after: MID, silent: false }, "the data connection is reset in mid-file, then 426"),
    error("reset-mid-file-silent", Kind::Reset { after: MID, silent: true }, "the data connection is reset in mid-file, no reply"),
    error("close-mid-file", Kind::Close { after: MID, silent: false }, "the data connection is closed in mid-file, then 426"),
    error("close-mid-file-silent", Kind::Close { after: MID, silent: true }, "the data connection is closed in mid-file, no reply"),
    error("control-drop", Kind::ControlDrop { after: MID }, "the control connection is closed in mid-file"),
    error("stor-421", Kind::Reply(Step::Stor, 421), "421 to STOR, and the session ends"),
    error("stor-450", Kind::Reply(Step::Stor, 450), "450 to STOR: file busy"),
    error("stor-452", Kind::Reply(Step::Stor, 452), "452 to STOR: no space"),
    error("stor-550", Kind::Reply(Step::Stor, 550), "550 to STOR: permission denied"),
    error("stor-552", Kind::Reply(Step::Stor, 552), "552 to STOR: quota exceeded"),
    error("stor-553", Kind::Reply(Step::Stor, 553), "553 to STOR: name not allowed"),
    error("mid-file-452", Kind::MidReply { code: 452, after: MID }, "the disk is full in mid-file"),
    error("mid-file-552", Kind::MidReply { code: 552, after: MID }, "the quota is exceeded in mid-file"),
    error("garbage-reply", Kind::Garbage(Step::Stor), "the reply to STOR is garbage"),
    timeout("endless-reply", Kind::Endless(Step::Stor), SilentServer, "the reply to STOR never ends"),
    timeout("drip-greeting", Kind::Drip { step: Step::Greeting, every: SECOND }, SilentServer, "the greeting comes one byte a second"),
    timeout("drip-reply", Kind::Drip { step: Step::Stor, every: SECOND }, SilentServer, "the reply to STOR comes one byte a second"),
    needs(Needs::Passive, success("wrong-pasv", Kind::WrongPasv, "EPSV is refused, PASV names a foreign address, which is ignored")),
    needs(Needs::Passive, success("epsv-refused", Kind::EpsvRefused, "EPSV is refused, PASV works")),
    error("login-refused", Kind::LoginRefused, "530 to PASS"),
    error("seats", Kind::Seats { max: 0 }, "421 instead of a greeting: too many sessions"),
];

/// Those that an upload over a plain connection in passive mode never meets.
#[rustfmt::skip]
const OTHERS: &[Named] = &[
    needs(Needs::Tls, timeout("no-reply-auth", Kind::NoReply(Step::Auth), SilentServer, "no reply to AUTH TLS")),
    needs(Needs::Tls, error("auth-502", Kind::Reply(Step::Auth, 502), "502 to AUTH TLS: not implemented")),
    needs(Needs::Tls, error("auth-534", Kind::Reply(Step::Auth, 534), "534 to AUTH TLS: refused by policy")),
    needs(Needs::Tls, error("auth-drop", Kind::HangUp(Step::Auth), "the connection is closed at AUTH TLS")),
    needs(Needs::Tls, error("auth-injected", Kind::Injected, "a plain reply is slipped in behind the 234 to AUTH TLS")),
    needs(Needs::Tls, timeout("no-handshake", Kind::NoReply(Step::Tls), SilentServer, "the TLS handshake gets no answer")),
    needs(Needs::Tls, timeout("drip-handshake", Kind::Drip { step: Step::Tls, every: SECOND }, SilentServer, "the TLS handshake comes one byte a second")),
    needs(Needs::Tls, error("garbage-handshake", Kind::Garbage(Step::Tls), "the TLS handshake is answered with garbage")),
    needs(Needs::Tls, timeout("no-data-handshake", Kind::NoReply(Step::DataTls), SilentServer, "the TLS handshake of the data connection gets no answer")),
    needs(Needs::Tls, timeout("drip-data-handshake", Kind::Drip { step: Step::DataTls, every: SECOND }, SilentServer, "the TLS handshake of the data connection comes one byte a second")),
    needs(Needs::Tls, timeout("no-tls-close", Kind::NoTlsClose, SilentServer, "all data is read, the data connection is never closed")),
    needs(Needs::Active, timeout("no-reply-eprt", Kind::NoReply(Step::Eprt), SilentServer, "no reply to EPRT or PORT")),
    needs(Needs::Active, timeout("no-connect", Kind::NoConnect, NoDataConnection, "150, but the server never connects")),
    needs(Needs::Active, success("stranger", Kind::Stranger, "a stranger connects first, then the server")),
    needs(Needs::Download, timeout("no-reply-retr", Kind::NoReply(Step::Retr), SilentServer, "no 150 after RETR")),
    needs(Needs::Download, error("retr-550", Kind::Reply(Step::Retr, 550), "550 to RETR: permission denied")),
    needs(Needs::Download, deadlock("stop-sending", Kind::StopSending { after: MID }, SilentServer, "the peer stops sending in mid-file")),
    needs(Needs::Download, error("short-download", Kind::Short { after: MID }, "a download ends with 226 before the file does")),
    needs(Needs::Download, timeout("no-reply-list", Kind::NoReply(Step::List), SilentServer, "no 150 after LIST, NLST or MLSD")),
    needs(Needs::Download, deadlock("stop-listing", Kind::StopListing, SilentServer, "the peer stops sending in the middle of a listing")),
    needs(Needs::Download, timeout("silent-226-list", Kind::NoReply(Step::Listed), SilentServer, "the listing is sent, no final reply comes")),
    needs(Needs::Download, success("hostile-names", Kind::HostileNames, "a listing shows names that lead out of the folder")),
];

/// All there are.
fn every() -> impl Iterator<Item = &'static Named> {
    NAMES.iter().chain(OTHERS)
}

impl Fault {
    /// The fault with this name and its default numbers, on the first occasion, without an end.
    pub fn from_name(name: &str) -> Result<Self, UnknownFault> {
        if let Some(found) = every().find(|n| n.name == name) {
            return Ok(Self::new(found.kind));
        }
        let nearest = every()
            .map(|n| (strsim::jaro_winkler(n.name, name), n.name))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.8)
            .map(|(_, near)| near);
        Err(UnknownFault {
            name: name.to_owned(),
            nearest,
        })
    }

    /// Every named fault that an upload over a plain connection in passive mode can meet; the
    /// first one is the demo's default.
    pub fn names() -> &'static [Named] {
        NAMES
    }

    /// The other named faults: of TLS, of active mode, of downloads.
    pub fn others() -> &'static [Named] {
        OTHERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_leads_to_the_kind_that_bears_it() {
        for (i, entry) in every().enumerate() {
            assert_eq!(entry.kind.name(), entry.name);
            assert_eq!(Fault::from_name(entry.name).unwrap().kind, entry.kind);
            let found_by_us = matches!(entry.expected, Expected::Deadlock | Expected::Timeout);
            assert_eq!(entry.cause.is_some(), found_by_us, "{}", entry.name);
            assert!(
                every().take(i).all(|other| other.name != entry.name),
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
