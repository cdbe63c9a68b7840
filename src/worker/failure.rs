//! Why a job failed, as the daemon needs to know it: whose failure it is, and in which phase.

use std::fmt;

use crate::core::names::{AttemptResult, Phase};
use crate::ftp::{Session, Trouble};

/// Why a job failed, as the daemon needs to know it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// The reply's code, if the server refused.
    pub code: Option<u32>,
    /// Whether there was a session: without one it is the destination's failure.
    pub connected: bool,
    /// Whether a login was taken in this job or before it: what is refused then is no login.
    pub logged_in: bool,
    /// Whether another try would come to the same end.
    pub lasting: bool,
    /// In which phase.
    pub phase: Phase,
    /// The whole story, for the log.
    pub error: String,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// A wait was over its bound.
    Timeout,
    /// The session was lost.
    Lost,
    /// The server refused this file.
    Refused,
    /// The source changed: it has to settle again.
    Changed,
    /// The source is gone.
    Vanished,
    /// The source cannot be read, or is locked.
    Source,
    /// Earlier attempts are still in doubt.
    Doubt,
    /// The journal cannot be written.
    Journal,
    /// The worker was ended.
    Ended,
}

impl FailureKind {
    /// As the metrics have it.
    pub fn result(self) -> AttemptResult {
        match self {
            Self::Timeout => AttemptResult::Timeout,
            Self::Ended => AttemptResult::Reset,
            _ => AttemptResult::Error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

/// A job's end in this phase; the session goes with it, unless it can be trusted still.
pub(super) fn failed(session: &mut Option<Session>, trouble: Trouble, phase: Phase) -> Failure {
    // What is wrong on this side says nothing of the destination.
    let connected = session.is_some() || matches!(trouble, Trouble::Source(_) | Trouble::InDoubt);
    if !trouble.spares_session()
        && let Some(session) = session.take()
    {
        session.discard();
    }
    failure(trouble, phase, connected)
}

fn failure(trouble: Trouble, phase: Phase, connected: bool) -> Failure {
    let kind = match &trouble {
        Trouble::Ended => FailureKind::Ended,
        Trouble::Timeout(_) => FailureKind::Timeout,
        Trouble::Changed => FailureKind::Changed,
        Trouble::Vanished => FailureKind::Vanished,
        Trouble::Source(_) => FailureKind::Source,
        Trouble::InDoubt => FailureKind::Doubt,
        Trouble::Unwritten => FailureKind::Journal,
        Trouble::Refused { code: 421, .. } | Trouble::Lost { .. } => FailureKind::Lost,
        Trouble::Refused { .. } | Trouble::SizeDiffers { .. } | Trouble::Incomplete { .. } => {
            FailureKind::Refused
        }
        Trouble::NoHash(_) | Trouble::Conflict(_) | Trouble::HashDiffers { .. } => {
            FailureKind::Refused
        }
    };
    let phase = match trouble {
        Trouble::Timeout(phase) | Trouble::Lost { phase, .. } => phase,
        _ => phase,
    };
    let entering = matches!(
        trouble,
        Trouble::Refused {
            verb: "TYPE" | "CWD" | "MKD",
            ..
        }
    );
    let lasting = matches!(
        trouble,
        Trouble::Vanished
            | Trouble::Source(_)
            | Trouble::NoHash(_)
            | Trouble::Conflict(_)
            | Trouble::Refused {
                code: 500..=599,
                ..
            }
    );
    Failure {
        kind,
        lasting,
        code: trouble.code(),
        connected,
        logged_in: connected || entering,
        phase,
        error: trouble.to_string(),
    }
}
