//! What can go wrong: a fault is a kind (what happens, and where), the occasions it takes, and
//! when it ends. Plain data; it decides nothing and counts nothing (`script` does).

use std::time::Duration;

use super::step::Step;

/// What happens when a fault strikes, and where.
///
/// `after` counts bytes of the file, uploaded or downloaded: the fault strikes when the server has
/// read or sent that many, so a shorter file is no occasion.
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
    /// The session freezes in the middle of an upload: its receive window closes.
    StopReading {
        /// Bytes of the file read before.
        after: u64,
    },
    /// The session freezes in the middle of a download.
    StopSending {
        /// Bytes of the file sent before.
        after: u64,
    },
    /// The session freezes in the middle of a listing.
    StopListing,
    /// A download ends cleanly, with a 226, although the file is longer.
    Short {
        /// Bytes of the file sent before.
        after: u64,
    },
    /// Listings show names that lead out of the folder, or that no file can have, beside the real
    /// ones.
    HostileNames,
    /// The path dies in the middle of the file: of both connections nothing is acknowledged or
    /// answered any more, as if no packet came through; what had come is read, then the session
    /// freezes. New connections work. When the fault ends the path is there again, and the
    /// session goes on.
    DeadPath {
        /// Bytes of the file read before.
        after: u64,
    },
    /// The same before the reply at this step. At STOR the file is open and the data connection
    /// accepted by then; at other steps nothing is executed.
    DeadPathAt(Step),
    /// The rest of the file is read, or sent, at this speed.
    Trickle {
        /// Bytes of the file before at full speed.
        after: u64,
        /// Bytes a second from then on.
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
    /// (and thrown away), or stays open, so that only the control connection tells.
    ControlDrop {
        /// Bytes of the file read before.
        after: u64,
    },
    /// This code is the reply at this step, and the command is not executed; a 421 also ends the
    /// session.
    Reply(Step, u16),
    /// The control connection is closed in place of the reply at this step.
    HangUp(Step),
    /// Behind the reply to AUTH, in the same packet, comes a plain reply to a command that was
    /// never sent, as from somebody on the way.
    Injected,
    /// After a whole upload over TLS the session freezes before its close_notify: the data
    /// connection stays open, and no 226 comes.
    NoTlsClose,
    /// In active mode the server says 150 and never connects.
    NoConnect,
    /// In active mode a stranger (127.0.0.66) connects first; only over IPv4.
    Stranger,
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

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
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
    /// thousands of wedges in a row do not pile up. Over a dead path only a reset tells it so;
    /// a session that is not told lets go after an hour.
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

impl Fault {
    /// A fault of this kind on the first occasion, without an end.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            holds: Holds::First(1),
            until: Until::Forever,
        }
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
    /// dripping replies, and dead paths, at other steps.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoReply(step) => step.no_reply(),
            Self::RntoDoneNoReply => "rnto-done-no-reply",
            Self::DataNotAccepted => "data-not-accepted",
            Self::DataRefused => "data-refused",
            Self::StopReading { .. } => "stop-reading",
            Self::StopSending { .. } => "stop-sending",
            Self::StopListing => "stop-listing",
            Self::Short { .. } => "short-download",
            Self::HostileNames => "hostile-names",
            Self::DeadPath { .. } => "path-dead-transfer",
            Self::DeadPathAt(Step::Final) => "path-dead-final",
            Self::DeadPathAt(_) => "path-dead-reply",
            Self::Trickle { .. } => "trickle",
            Self::Late226(_) => "late-226",
            Self::Reset { silent: false, .. } => "reset-mid-file",
            Self::Reset { silent: true, .. } => "reset-mid-file-silent",
            Self::Close { silent: false, .. } => "close-mid-file",
            Self::Close { silent: true, .. } => "close-mid-file-silent",
            Self::ControlDrop { .. } => "control-drop",
            Self::Reply(Step::Auth, 502) => "auth-502",
            Self::Reply(Step::Auth, 534) => "auth-534",
            Self::Reply(Step::Stor, code) => match code {
                421 => "stor-421",
                450 => "stor-450",
                452 => "stor-452",
                550 => "stor-550",
                552 => "stor-552",
                553 => "stor-553",
                _ => "stor-reply",
            },
            Self::Reply(Step::Retr, 550) => "retr-550",
            Self::Reply(..) => "other-reply",
            Self::HangUp(Step::Auth) => "auth-drop",
            Self::HangUp(_) => "hang-up",
            Self::Injected => "auth-injected",
            Self::NoTlsClose => "no-tls-close",
            Self::NoConnect => "no-connect",
            Self::Stranger => "stranger",
            Self::MidReply { code, .. } => match code {
                452 => "mid-file-452",
                552 => "mid-file-552",
                _ => "mid-file-reply",
            },
            Self::Garbage(Step::Tls) => "garbage-handshake",
            Self::Garbage(_) => "garbage-reply",
            Self::Endless(_) => "endless-reply",
            Self::Drip {
                step: Step::Greeting,
                ..
            } => "drip-greeting",
            Self::Drip {
                step: Step::Tls, ..
            } => "drip-handshake",
            Self::Drip {
                step: Step::DataTls,
                ..
            } => "drip-data-handshake",
            Self::Drip { .. } => "drip-reply",
            Self::WrongPasv => "wrong-pasv",
            Self::EpsvRefused => "epsv-refused",
            Self::LoginRefused => "login-refused",
            Self::Seats { .. } => "seats",
        }
    }

    /// The byte of the file at which it strikes, for the faults of the middle of a file.
    pub(super) fn mid_file(&self, way: Way) -> Option<u64> {
        match (*self, way) {
            (Self::StopReading { after }, Way::Up)
            | (Self::StopSending { after } | Self::Short { after }, Way::Down)
            | (
                Self::DeadPath { after }
                | Self::Trickle { after, .. }
                | Self::Reset { after, .. }
                | Self::Close { after, .. }
                | Self::ControlDrop { after }
                | Self::MidReply { after, .. },
                _,
            ) => Some(after),
            _ => None,
        }
    }

    /// The step whose reply it spoils, for the faults that can be laid on any step.
    pub(super) fn step(&self) -> Option<Step> {
        match *self {
            Self::NoReply(step)
            | Self::DeadPathAt(step)
            | Self::Garbage(step)
            | Self::Endless(step)
            | Self::Reply(step, _)
            | Self::HangUp(step)
            | Self::Drip { step, .. } => Some(step),
            Self::Late226(_) => Some(Step::Final),
            Self::RntoDoneNoReply => Some(Step::Rnto),
            Self::LoginRefused => Some(Step::Pass),
            Self::Injected => Some(Step::Auth),
            Self::Seats { .. } => Some(Step::Greeting),
            Self::DataNotAccepted | Self::DataRefused | Self::WrongPasv | Self::EpsvRefused => {
                Some(Step::Epsv)
            }
            Self::StopReading { .. }
            | Self::StopSending { .. }
            | Self::StopListing
            | Self::Short { .. }
            | Self::HostileNames
            | Self::NoTlsClose
            | Self::NoConnect
            | Self::Stranger
            | Self::DeadPath { .. }
            | Self::Trickle { .. }
            | Self::Reset { .. }
            | Self::Close { .. }
            | Self::ControlDrop { .. }
            | Self::MidReply { .. } => None,
        }
    }
}
