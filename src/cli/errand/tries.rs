//! How often something is tried: again after a failure that may pass, with growing pauses, until
//! it was tried as often as was asked for; not again where the server refuses for good or was never
//! reached. Each failure is told with what comes next.

use slog::{Logger, error, warn};

use super::crew::{Crew, Done};
use crate::cli::guard::Verdict;
use crate::clock;
use crate::core::names::Phase;
use crate::core::retry::Backoff;
use crate::token;
use crate::worker::{Failure, FailureKind, JobResult};

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End<T> {
    /// Well.
    Done(T),
    /// It was given up; something else may fare better.
    Failed,
    /// It was given up, as is everything else: the destination is not there, or not for us.
    Unreachable,
    /// A signal came.
    Stopped,
}

impl<T> End<T> {
    /// With something else of what was done.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> End<U> {
        match self {
            Self::Done(done) => End::Done(of(done)),
            Self::Failed => End::Failed,
            Self::Unreachable => End::Unreachable,
            Self::Stopped => End::Stopped,
        }
    }
}

/// A try that came to nothing.
pub enum Miss {
    /// It failed.
    Failed(Failed),
    /// A signal came.
    Stopped,
}

/// Why.
pub struct Failed {
    error: String,
    /// Whether another try can come to a better end.
    again: bool,
    /// Whether it was the destination's failure: everything else would meet it, too.
    all: bool,
}

impl Miss {
    /// A failure that may pass.
    pub fn once(error: impl Into<String>) -> Self {
        Self::Failed(Failed {
            error: error.into(),
            again: true,
            all: false,
        })
    }

    /// One that will not.
    pub fn lasting(error: impl Into<String>) -> Self {
        Self::Failed(Failed {
            error: error.into(),
            again: false,
            all: false,
        })
    }
}

/// What is tried, for people.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    /// Such as "sending".
    pub deed: &'static str,
    /// The file; foreign text.
    pub shown: &'a str,
}

/// Tries it `attempts` times at most.
pub fn tries<T>(
    crew: &mut Crew,
    attempts: u32,
    what: What<'_>,
    log: &Logger,
    mut once: impl FnMut(&mut Crew) -> Result<T, Miss>,
) -> End<T> {
    let retry = crew.config().retry.clone();
    let backoff = Backoff {
        first: retry.first,
        max: retry.max,
        jitter: retry.jitter,
    };
    let begun = clock::mono();
    let mut failures = 0;
    loop {
        if crew.stop().came().is_some() {
            return End::Stopped;
        }
        let Failed { error, again, all } = match once(crew) {
            Ok(done) => return End::Done(done),
            Err(Miss::Stopped) => return End::Stopped,
            Err(Miss::Failed(failed)) => failed,
        };
        failures += 1;
        let time = clock::mono().saturating_sub(begun);
        if !again || failures >= attempts || time > retry.give_up_after {
            let next = match again {
                true => "it is given up",
                false => "it is not tried again",
            };
            error!(log, "{} failed", what.deed; "file" => what.shown, "error" => error,
                "next" => next);
            return if all { End::Unreachable } else { End::Failed };
        }
        let pause = backoff.pause(failures, token::random());
        warn!(log, "{} failed", what.deed; "file" => what.shown, "attempt" => failures,
            "of" => attempts, "error" => error, "next" => format!("retry in {pause:.1?}"));
        if !crew.pause(pause) {
            return End::Stopped;
        }
    }
}

impl Crew {
    /// What a job came to that did not end well. Once a signal has come, nothing is tried again.
    pub fn miss(&mut self, done: Done) -> Miss {
        let missed = match done {
            Done::Told(JobResult::Failed(failure)) => self.miss_of(&failure),
            Done::Told(_) => Miss::once("a report of another job"),
            Done::Wedged(Verdict { phase, cause, .. }) => Miss::once(format!(
                "no sign of life in the phase {phase} ({cause}): the connection is put aside, a \
                 fresh one goes on"
            )),
            Done::Lost => Miss::once("its worker is gone (please report this as a bug)"),
            Done::Impossible(error) => Miss::Failed(Failed {
                error,
                again: false,
                all: true,
            }),
            Done::Stopped => Miss::Stopped,
        };
        match self.stop().came() {
            Some(_) => Miss::Stopped,
            None => missed,
        }
    }

    fn miss_of(&mut self, failure: &Failure) -> Miss {
        // Our own connections that are kept aside may have taken the last seats.
        let full = matches!(failure.code, Some(421 | 530)) && self.release();
        let local = matches!(
            failure.kind,
            FailureKind::Changed
                | FailureKind::Vanished
                | FailureKind::Source
                | FailureKind::Journal
                | FailureKind::Doubt
                | FailureKind::Ended
        );
        // The timers have said how often: who never reached it has a wrong address.
        let nowhere =
            !self.reached() && matches!(failure.phase, Phase::Dns | Phase::ControlConnect);
        let error = match failure.kind {
            FailureKind::Journal => "what is sent cannot be noted in the state folder: make room \
                                     there, or name another one in XDG_STATE_HOME"
                .to_owned(),
            _ => failure.error.clone(),
        };
        Miss::Failed(Failed {
            error,
            again: full || !(failure.lasting || nowhere && !local),
            all: !local && !failure.connected,
        })
    }
}
