//! What can go wrong: a fault is a kind (what happens, and where), the occasions it takes, and
//! when it ends. Plain data with stable kebab-case names for `--fault NAME`; it decides nothing
//! and counts nothing (`script` does).

use std::fmt;
use std::time::Duration;

/// A place in the protocol at which a reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The greeting after the connect.
    Greeting,
    /// USER.
    User,
    /// PASS.
    Pass,
    /// EPSV or PASV.
    Epsv,
    /// STOR, before its 150.
    Stor,
    /// The reply after the data, the 226.
    Final,
    /// SIZE.
    Size,
    /// RNFR.
    Rnfr,
    /// RNTO.
    Rnto,
}

/// What happens when a fault strikes, and where.
///
/// `after` counts bytes of the file: the fault strikes when the server has read that many, so a
/// shorter file is no occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The session freezes at this step, as a stopped process would: nothing is executed, nothing
    /// is read, nothing is replied. When the fault ends it goes on where it stood: it executes
    /// what it holds, then what waits in its socket buffers.
    NoReply(Step),
    /// RNTO is executed, then the session freezes before the reply.
    RntoDoneNoReply,
    /// The data port answers no SYN: the connect stays in SYN_SENT. Other commands are served.
    DataNotAccepted,
    /// The data port is closed: the connect is refused.
    DataRefused,
    /// The session freezes in the middle of the file: its receive window closes.
    StopReading {
        /// Bytes of the file read before.
        after: u64,
    },
    /// The rest of the file is read at this speed.
    Trickle {
        /// Bytes of the file read before at full speed.
        after: u64,
        /// Bytes read a second from then on.
        bytes_per_second: u32,
    },
    /// The final reply comes after this time.
    Late226(Duration),
    /// The data connection is reset.
    Reset {
        /// Bytes of the file read before.
        after: u64,
        /// No 426 follows: the session freezes instead.
        silent: bool,
    },
    /// The data connection is closed with a clean FIN although the file has not ended.
    Close {
        /// Bytes of the file read before.
        after: u64,
        /// No 426 follows: the session freezes instead.
        silent: bool,
    },
    /// The control connection is closed in mid-file; the data connection is still read to its end
    /// (and thrown away), so that only the control connection tells.
    ControlDrop {
        /// Bytes of the file read before.
        after: u64,
    },
    /// STOR is refused with this code; a 421 also ends the session.
    StorReply(u16),
    /// The data connection is closed in mid-file and this code is the final reply.
    MidReply {
        /// The reply code.
        code: u16,
        /// Bytes of the file read before.
        after: u64,
    },
    /// The reply at this step is a line without a code, with control characters and bytes that
    /// are no UTF-8. The command is not executed.
    Garbage(Step),
    /// The reply at this step is a multi-line reply that does not end, 20 lines a second.
    Endless(Step),
    /// The reply at this step comes byte by byte.
    Drip {
        /// Which reply.
        step: Step,
        /// Pause between two bytes.
        every: Duration,
    },
    /// EPSV is refused with 502, then PASV names a foreign address (192.0.2.1, with the port that
    /// the server really listens on).
    WrongPasv,
    /// EPSV is refused with 500; PASV works.
    EpsvRefused,
    /// PASS is answered with 530.
    LoginRefused,
    /// While more than `max` sessions are open a new one gets a 421.
    Seats {
        /// Sessions that are served.
        max: usize,
    },
}

/// Which occasions a fault takes. An occasion is a moment at which it could strike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The first so many, over the whole server.
    First(u32),
    /// Every one.
    Always,
    /// The first so many whose path (as the server sees it, from `/`) contains the text. Steps
    /// without a path (greeting, login, EPSV) match the empty text only.
    Matching {
        /// Text to find in the path.
        substr: String,
        /// How many.
        n: u32,
    },
}

/// When a strike ends. Faults that hold nothing up (a code, a reset) do not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the next `LabServer::thaw` after the strike.
    Thaw,
    /// This long after the strike.
    After(Duration),
    /// Never; the session lets go when its client has closed the control connection, so that
    /// thousands of wedges in a row do not pile up.
    Forever,
}

/// One scripted fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happens, and where.
    pub kind: Kind,
    /// Which occasions it takes.
    pub holds: Holds,
    /// When a strike ends.
    pub until: Until,
}

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
    /// A fault of this kind on the first occasion, without an end.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            holds: Holds::First(1),
            until: Until::Forever,
        }
    }

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

    /// Takes the first `n` occasions.
    #[must_use]
    pub fn first(self, n: u32) -> Self {
        Self {
            holds: Holds::First(n),
            ..self
        }
    }

    /// Takes every occasion.
    #[must_use]
    pub fn always(self) -> Self {
        Self {
            holds: Holds::Always,
            ..self
        }
    }

    /// Takes the first `n` occasions whose path contains `substr`.
    #[must_use]
    pub fn matching(self, substr: impl Into<String>, n: u32) -> Self {
        Self {
            holds: Holds::Matching {
                substr: substr.into(),
                n,
            },
            ..self
        }
    }

    /// Each strike ends at the next thaw.
    #[must_use]
    pub fn until_thaw(self) -> Self {
        Self {
            until: Until::Thaw,
            ..self
        }
    }

    /// Each strike ends after this time.
    #[must_use]
    pub fn ends_after(self, time: Duration) -> Self {
        Self {
            until: Until::After(time),
            ..self
        }
    }
}

impl Kind {
    /// The stable name; kinds that differ in numbers only share it, as do garbage, endless and
    /// dripping replies at other steps.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoReply(step) => match step {
                Step::Greeting => "no-greeting",
                Step::User => "no-reply-user",
                Step::Pass => "no-reply-pass",
                Step::Epsv => "no-reply-epsv",
                Step::Stor => "no-reply-stor",
                Step::Final => "silent-226",
                Step::Size => "no-reply-size",
                Step::Rnfr => "no-reply-rnfr",
                Step::Rnto => "no-reply-rnto",
            },
            Self::RntoDoneNoReply => "rnto-done-no-reply",
            Self::DataNotAccepted => "data-not-accepted",
            Self::DataRefused => "data-refused",
            Self::StopReading { .. } => "stop-reading",
            Self::Trickle { .. } => "trickle",
            Self::Late226(_) => "late-226",
            Self::Reset { silent: false, .. } => "reset-mid-file",
            Self::Reset { silent: true, .. } => "reset-mid-file-silent",
            Self::Close { silent: false, .. } => "close-mid-file",
            Self::Close { silent: true, .. } => "close-mid-file-silent",
            Self::ControlDrop { .. } => "control-drop",
            Self::StorReply(code) => match code {
                421 => "stor-421",
                450 => "stor-450",
                452 => "stor-452",
                550 => "stor-550",
                552 => "stor-552",
                553 => "stor-553",
                _ => "stor-reply",
            },
            Self::MidReply { code, .. } => match code {
                452 => "mid-file-452",
                552 => "mid-file-552",
                _ => "mid-file-reply",
            },
            Self::Garbage(_) => "garbage-reply",
            Self::Endless(_) => "endless-reply",
            Self::Drip {
                step: Step::Greeting,
                ..
            } => "drip-greeting",
            Self::Drip { .. } => "drip-reply",
            Self::WrongPasv => "wrong-pasv",
            Self::EpsvRefused => "epsv-refused",
            Self::LoginRefused => "login-refused",
            Self::Seats { .. } => "seats",
        }
    }

    /// The byte of the file at which it strikes, for the faults of the middle of a file.
    pub(super) fn mid_file(&self) -> Option<u64> {
        match *self {
            Self::StopReading { after }
            | Self::Trickle { after, .. }
            | Self::Reset { after, .. }
            | Self::Close { after, .. }
            | Self::ControlDrop { after }
            | Self::MidReply { after, .. } => Some(after),
            Self::NoReply(_)
            | Self::RntoDoneNoReply
            | Self::DataNotAccepted
            | Self::DataRefused
            | Self::Late226(_)
            | Self::StorReply(_)
            | Self::Garbage(_)
            | Self::Endless(_)
            | Self::Drip { .. }
            | Self::WrongPasv
            | Self::EpsvRefused
            | Self::LoginRefused
            | Self::Seats { .. } => None,
        }
    }

    /// The step whose reply it spoils, for the faults that can be laid on any step.
    pub(super) fn step(&self) -> Option<Step> {
        match *self {
            Self::NoReply(step) | Self::Garbage(step) | Self::Endless(step) => Some(step),
            Self::Drip { step, .. } => Some(step),
            Self::StorReply(_) => Some(Step::Stor),
            Self::Late226(_) => Some(Step::Final),
            Self::RntoDoneNoReply => Some(Step::Rnto),
            Self::LoginRefused => Some(Step::Pass),
            Self::Seats { .. } => Some(Step::Greeting),
            Self::DataNotAccepted | Self::DataRefused | Self::WrongPasv | Self::EpsvRefused => {
                Some(Step::Epsv)
            }
            Self::StopReading { .. }
            | Self::Trickle { .. }
            | Self::Reset { .. }
            | Self::Close { .. }
            | Self::ControlDrop { .. }
            | Self::MidReply { .. } => None,
        }
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
