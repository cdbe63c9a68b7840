//! What a worker finds out for a person: what a remote folder holds, and which version of a file
//! is there. It changes nothing on the server.

use super::job::Result as JobResult;
use crate::core::arrivals::Version;
use crate::ftp::{Entry, Session, Setup, Trouble};

/// A question about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What a folder below the remote one holds.
    Folder(String),
    /// Which version of a file below the remote folder is there.
    File(String),
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The folder's entries, in the server's order.
    Folder(Vec<Entry>),
    /// The version; none if there is no such file.
    File(Option<Version>),
}

impl Ask {
    pub(super) fn run(self, setup: &Setup, session: &mut Session) -> Result<JobResult, Trouble> {
        let answer = match self {
            Self::Folder(path) => {
                let mut entries = Vec::new();
                let bound = setup.timers.transfer_get;
                session.entries_in(&path, bound, |entry| entries.push(entry))?;
                Answer::Folder(entries)
            }
            Self::File(path) => Answer::File(session.version_of(&path)?),
        };
        Ok(JobResult::Answered(answer))
    }
}
