//! What a worker does for the house: old temp names are taken away, and looked for.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::job::Result as JobResult;
use crate::clock;
use crate::core::names::Phase;
use crate::ftp::{self, Session, Setup, Trouble};
use crate::spool::journal::{Change, attempts_in};

/// The age at which a temp file of this agent that nobody knows any more is removed.
const AGE: Duration = Duration::from_secs(24 * 3600);
/// What its age has to be beyond that by our own clock before the server's is asked for.
const SPARE: Duration = Duration::from_secs(3600);

/// Old temp names that a late server may have made again.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The names, below the remote folder.
    pub temps: Vec<String>,
}

impl Sweep {
    pub(super) fn run(self, session: &mut Session) -> Result<JobResult, Trouble> {
        let mut left = Vec::new();
        for temp in self.temps {
            if !ftp::take_away(session, &temp)? {
                left.push(temp);
            }
        }
        Ok(JobResult::Swept { left })
    }
}

/// A folder in which to look for temp files that nobody knows any more.
#[derive(Debug, Clone)]
pub struct Look {
    /// It, below the remote folder.
    pub folder: String,
    /// The id in our temp names.
    pub agent: String,
    /// A fresh temp name, for the question what time the server has.
    pub clock: String,
    /// The journal's file.
    pub journal: PathBuf,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Seen {
    /// Temp files of this agent, a day old, which no attempt in the journal is of.
    pub old: Vec<String>,
    /// Whether `clock` was used.
    pub asked: bool,
}

impl Look {
    /// Two clocks have to agree that a file is a day old. By ours alone a server whose clock is
    /// behind, or which tells its local time for UTC, would make a fresh file look old: another
    /// installation may have been copied with this one's id and be at work. So the server dates an
    /// empty file of ours in the same way, and only what is a day older than that is old.
    pub(super) fn run(self, setup: &Setup, session: &mut Session) -> Result<JobResult, Trouble> {
        let temps = &setup.route.publishing.temps;
        let mut names = session.names_in(&self.folder, |name| temps.is_of(name, &self.agent))?;
        if names.is_empty() {
            return Ok(JobResult::Looked(Seen::default()));
        }
        // The listing came first: whatever was begun since is not in it. What is in work, in doubt
        // or to be resumed stands in the journal, also that of routes that are not there now.
        setup.handle.begin(Phase::LocalFile, None);
        let known = attempts_in(&self.journal);
        setup.handle.check()?;
        let known = known.map_err(|e| Trouble::Source(format!("reading the journal: {e}")))?;
        names.retain(|name| !known.contains(base(name)));
        let ours = UNIX_EPOCH + Duration::from_secs_f64(clock::unix().max(0.0));
        let mut dated = Vec::new();
        for name in names {
            // Where the server does not tell the age, it is left alone.
            if let Some(at) = session.modified_below(&name)?
                && is_older(at, ours, AGE + SPARE)
            {
                dated.push((name, at));
            }
        }
        if dated.is_empty() {
            return Ok(JobResult::Looked(Seen::default()));
        }
        let noted = Change::Sweep {
            route: setup.route.name.as_str().into(),
            temp: self.clock.clone(),
            at: Some(clock::unix()),
        };
        let noted = setup.handle.write(&setup.journal, noted)?;
        noted.map_err(|_| Trouble::Unwritten)?;
        let theirs = session.server_time(&self.clock)?;
        dated.retain(|(_, at)| theirs.is_some_and(|now| is_older(*at, now, AGE)));
        Ok(JobResult::Looked(Seen {
            old: dated.into_iter().map(|(name, _)| name).collect(),
            asked: true,
        }))
    }
}

fn is_older(at: SystemTime, now: SystemTime, age: Duration) -> bool {
    now.duration_since(at).is_ok_and(|real| real >= age)
}

/// The name without its folder: another route may have it below another one.
pub fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
