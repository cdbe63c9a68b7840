//! How the guard tells what it does: the words of its log.

use std::fmt;
use std::time::Duration;

use crate::core::Mono;
use crate::core::names::RestartReason;
use crate::core::watch::Exit;

/// Strangers and unreadable messages are logged no more often.
const REMIND: Duration = Duration::from_secs(60);

/// The end of a life.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// How.
    pub exit: Exit,
    /// Why.
    pub reason: RestartReason,
    /// When what led to it was seen: the end itself, or the verdict.
    pub event: Mono,
    /// Whether a pause follows.
    pub paused: bool,
}

/// Something that may happen often and is told seldom.
#[derive(Debug, Default)]
pub struct Reminder {
    told: Option<Mono>,
    count: u64,
}

impl Reminder {
    /// One more; how many since it was last told, if it is to be told now.
    pub fn one_more(&mut self, now: Mono) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|told| now < told + REMIND) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// A time as a person reads it.
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms < 10_000 {
            write!(f, "{ms}ms")
        } else {
            write!(f, "{:.1}s", self.0.as_secs_f64())
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => write!(f, "signal {number}"),
            Exit::Unknown => f.write_str("no exit code"),
        }
    }
}

/// Why it was killed, in words.
pub fn why(reason: RestartReason) -> &'static str {
    match reason {
        RestartReason::Exit => "it did not end in time when it was asked to",
        RestartReason::Beats => "its beats (WATCHDOG=1) did not come",
        RestartReason::NoPulse => "its pulses (X_FTPULSE_PULSE=1) did not come: frozen or dead",
        RestartReason::NoSoftwareBeat => {
            "its software beats (WATCHDOG=1) did not come: the event loop is wedged"
        }
        RestartReason::NotReady => {
            "it sent neither READY=1 nor WATCHDOG=1 to NOTIFY_SOCKET within watchdog.start_timeout"
        }
        RestartReason::Garbage => "what came in the place of its beats could not be read",
    }
}

/// Why the watchdog ends with this code.
pub fn why_it_ends(code: u8, stopped: bool) -> &'static str {
    match (code, stopped) {
        (_, true) => "it or the program was asked to",
        (0, _) => "the program is done",
        (2, _) => "its configuration or command is wrong: starting it again cannot help",
        _ => "the program has ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_once_a_minute_with_its_number() {
        let mut reminder = Reminder::default();
        let at = |seconds| Duration::from_secs(seconds);
        assert_eq!(reminder.one_more(at(100)), Some(1));
        assert_eq!(reminder.one_more(at(101)), None);
        assert_eq!(reminder.one_more(at(159)), None);
        assert_eq!(reminder.one_more(at(160)), Some(3));
    }

    #[test]
    fn times_are_short() {
        let text = |ms| Span(Duration::from_millis(ms)).to_string();
        assert_eq!(
            (text(7), text(12_345)),
            ("7ms".to_owned(), "12.3s".to_owned())
        );
    }
}
