//! A lock that somebody else holds is asked for again, so often and with such pauses as the timers
//! say (S2), awake for Pings and for the end.

use std::fmt::Display;
use std::time::Duration;

use slog::info;

use super::job::escape;
use crate::core::names::Phase;
use crate::ftp::{Setup, Trouble};
use crate::pulse::Stop;

/// How often a lock is asked for again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    /// Times after the first.
    pub count: u32,
    /// Pause before each.
    pub pause: Duration,
}

/// Asks `lock` until it has it. `what` it is of, for people: the source, the target.
///
/// # Errors
/// It is held after the last time, with the holder; or the worker was ended.
pub(super) fn hold<T, E: Display>(
    setup: &Setup,
    (what, path): (&str, &str),
    retries: Retries,
    mut lock: impl FnMut() -> Result<T, E>,
) -> Result<T, Trouble> {
    let handle = &setup.handle;
    let mut left = retries.count;
    loop {
        let locked = match lock() {
            Ok(held) => return Ok(held),
            Err(locked) => locked,
        };
        if left == 0 {
            return Err(Trouble::Source(format!("{what} is {locked}")));
        }
        left -= 1;
        let pause = retries.pause;
        handle.begin(Phase::Lock, Some(pause * 2 + Duration::from_secs(1)));
        match handle.wait(None, Some(pause)) {
            Ok(Ok(_) | Err(Stop::Timeout(_))) => {}
            Ok(Err(Stop::Ended)) => return Err(Trouble::Ended),
            Err(error) => return Err(Trouble::from_io(handle, "waiting for the lock", &error)),
        }
        info!(setup.log, "{} is locked", what; "file" => escape(path),
            "error" => escape(&locked.to_string()), "left" => left, "next" => "the lock is tried again");
    }
}
