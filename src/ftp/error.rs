//! What can go wrong on the wire, and whether the session survives it.

use std::fmt;
use std::io;

use suppaftp::FtpError;

use crate::core::journey::Stage;
use crate::core::names::Phase;
use crate::pulse::{Attempt, Stop, WorkerHandle};

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The worker was ended; no further step may be taken.
    Ended,
    /// A phase was over its bound.
    Timeout(Phase),
    /// The server said no (4xx, 5xx): the session stands, unless it was a 421.
    Refused {
        /// The command.
        verb: &'static str,
        /// The reply's code.
        code: u32,
        /// The reply's text, as it came.
        text: String,
    },
    /// The connection broke, or what came makes no sense: the session cannot be used any more.
    Lost {
        /// In which phase.
        phase: Phase,
        /// What was seen.
        error: String,
    },
    /// The source could not be read, or the target of a download not be written.
    Source(String),
    /// The source is not the file any more that the transfer began with.
    Changed,
    /// The source is not there any more.
    Vanished,
    /// What became of an earlier attempt cannot be told yet.
    InDoubt,
    /// The journal cannot be written: what was to be done next must not be.
    Unwritten,
    /// The server tells no hash of a file, and the route wants one; its features.
    NoHash(String),
    /// The server has other bytes than were sent.
    HashDiffers {
        /// How it was asked.
        by: &'static str,
        /// Of what was sent.
        sent: String,
        /// What the server answered.
        found: String,
    },
    /// The final name exists on the server, and the route does not allow to replace it; what
    /// exactly is in the way.
    Conflict(String),
    /// The server said that it sent all, and did not.
    Incomplete {
        /// Bytes that are here.
        received: u64,
        /// Bytes that it listed.
        listed: u64,
    },
    /// The server has a size that differs from what was sent.
    SizeDiffers {
        /// Bytes sent.
        sent: u64,
        /// What SIZE answered.
        found: u64,
    },
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Ended => Self::Ended,
            Stop::Timeout(phase) => Self::Timeout(phase),
        }
    }
}

impl Trouble {
    /// Waits until the attempt's stage stands in the journal.
    pub fn unless_journalled(handle: &WorkerHandle, attempt: &Attempt) -> Result<(), Self> {
        attempt.journalled(handle)?.map_err(|_| Self::Unwritten)
    }

    /// The same before a step that cannot be taken back. Where it cannot be written the step is not
    /// made, and the attempt is where it was `before`.
    pub fn unless_noted(
        handle: &WorkerHandle,
        attempt: &Attempt,
        before: Stage,
    ) -> Result<(), Self> {
        Self::unless_journalled(handle, attempt).inspect_err(|trouble| {
            if *trouble == Self::Unwritten {
                attempt.enter(before);
            }
        })
    }

    /// Names what suppaftp reported. The fence and the interrupt come first: what their dead
    /// descriptor makes of a call is not the server's doing.
    pub fn from_ftp(handle: &WorkerHandle, verb: &'static str, error: FtpError) -> Self {
        if let Err(stop) = handle.check() {
            return stop.into();
        }
        match error {
            FtpError::UnexpectedResponse(response) => match code_of(&response.body) {
                Some(code) if (400..600).contains(&code) => Self::Refused {
                    verb,
                    code,
                    text: String::from_utf8_lossy(&response.body)
                        .trim_end()
                        .to_owned(),
                },
                _ => Self::Lost {
                    phase: handle.phase(),
                    error: format!(
                        "{verb} was answered with something else than expected: {}",
                        String::from_utf8_lossy(&response.body).trim_end()
                    ),
                },
            },
            FtpError::ConnectionError(error) => match error.downcast::<Self>() {
                // The data connection failed inside suppaftp; it has told its own story.
                Ok(trouble) => trouble,
                Err(error) => Self::Lost {
                    phase: handle.phase(),
                    error: format!("{verb}: {error}"),
                },
            },
            other => Self::Lost {
                phase: handle.phase(),
                error: format!("{verb}: {other}"),
            },
        }
    }

    /// Takes a reply for whole only while nothing stopped the worker: the fence's dead descriptor
    /// cuts a reply that comes in pieces, and suppaftp takes such a part for the whole.
    pub fn unless_stopped<T>(handle: &WorkerHandle, value: T) -> Result<T, Self> {
        handle.check().map(|()| value).map_err(Self::from)
    }

    /// Names an error of the system on a connection, the fence and the interrupt first.
    pub fn from_io(handle: &WorkerHandle, what: &str, error: &io::Error) -> Self {
        match handle.check() {
            Err(stop) => stop.into(),
            Ok(()) => Self::Lost {
                phase: handle.phase(),
                error: format!("{what}: {error}"),
            },
        }
    }

    /// The same story without this secret: some servers repeat what they refuse.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if let Self::Refused { text, .. } | Self::Lost { error: text, .. } = &mut self
            && !secret.is_empty()
        {
            *text = text.replace(secret, "(password)");
        }
        self
    }

    /// Whether the session can be used for the next step.
    pub fn spares_session(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code != 421,
            Self::Source(_)
            | Self::Changed
            | Self::Vanished
            | Self::InDoubt
            | Self::Unwritten
            | Self::NoHash(_)
            | Self::HashDiffers { .. }
            | Self::Conflict(_)
            | Self::Incomplete { .. }
            | Self::SizeDiffers { .. } => true,
            Self::Ended | Self::Timeout(_) | Self::Lost { .. } => false,
        }
    }

    /// The reply's code, if the server refused.
    pub fn code(&self) -> Option<u32> {
        match self {
            // Some servers want a login (530) before they say that they have no TLS: none was tried.
            Self::Refused {
                verb: "AUTH",
                code: 500..,
                ..
            } => None,
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// The code of the last line of a reply (RFC 959 section 4.2).
fn code_of(body: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(body);
    text.lines().next_back()?.get(..3)?.parse().ok()
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the upload was ended"),
            Self::Timeout(phase) => write!(f, "no event within the bound of the phase {phase}"),
            Self::Refused {
                verb: "AUTH",
                code: 500..,
                text,
            } => write!(
                f,
                "the server offers no TLS at this port, and nothing is sent in plain: AUTH TLS was \
                 answered with {text}"
            ),
            Self::Refused { verb, text, .. } => write!(f, "the server refused {verb}: {text}"),
            Self::Lost { phase, error } => write!(f, "the session was lost in {phase}: {error}"),
            Self::Source(error) | Self::Conflict(error) => f.write_str(error),
            Self::Changed => f.write_str("the source changed while it was sent"),
            Self::Vanished => f.write_str("the source vanished"),
            Self::Unwritten => f.write_str("the journal cannot be written"),
            Self::InDoubt => f.write_str("an earlier attempt is still in doubt"),
            Self::NoHash(features) if features.is_empty() => f.write_str(
                "verify = \"hash\", but the server tells no hash of a file (it names no features)",
            ),
            Self::NoHash(features) => write!(
                f,
                "verify = \"hash\", but the server tells no hash of a file (its FEAT: {features})"
            ),
            Self::HashDiffers { by, sent, found } => write!(
                f,
                "the server has other bytes than were sent: {by} is {found} there and {sent} here"
            ),
            Self::Incomplete { received, listed } => write!(
                f,
                "the server said that it sent the whole file, but {received} of {listed} bytes came"
            ),
            Self::SizeDiffers { sent, found } => {
                write!(f, "{sent} bytes were sent but the server has {found}")
            }
        }
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_reply_gives_its_code() {
        assert_eq!(code_of(b"550 no such file\r\n"), Some(550));
        assert_eq!(code_of(b"226-bye\r\n more\r\n421 gone\r\n"), Some(421));
        assert_eq!(code_of(b"\xff\xff\xff garbage\r\n"), None);
        assert_eq!(code_of(b""), None);
    }
}
