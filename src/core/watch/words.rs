//! What the guard tells the watch, and what it is answered.

use std::time::Duration;

use super::super::Mono;
use super::super::names::RestartReason;

/// The settings (`watchdog.*`, `shutdown.grace`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time in which a program of one beat has to send it.
    pub interval: Duration,
    /// Missing or unreadable beats tolerated in a row.
    pub misses: u32,
    /// The window in which they are counted.
    pub window: Duration,
    /// Whether a program that is ready has to beat; else it is judged from its first beat on.
    pub required: bool,
    /// How long the program may take to be ready.
    pub start_timeout: Duration,
    /// Time between two pulses.
    pub pulse_interval: Duration,
    /// Time between two software beats.
    pub software_interval: Duration,
    /// Missing beats of one kind that are the fault.
    pub kind_misses: u32,
    /// How long the program may take to end.
    pub stop_bound: Duration,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Nobody tells: it was not our child.
    Unknown,
}

impl Exit {
    /// The exit code that tells of it: 128 + n for a signal, 1 where nobody knows.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => number.saturating_add(128),
            Self::Unknown => 1,
        }
    }
}

/// What one message of the program said, as far as it is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// `WATCHDOG=1`.
    pub beat: bool,
    /// `X_FTPULSE_PULSE=1`.
    pub pulse: bool,
    /// `READY=1`.
    pub ready: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `WATCHDOG=trigger`.
    pub trigger: bool,
    /// `EXTEND_TIMEOUT_USEC=`.
    pub extend: Option<Duration>,
    /// `WATCHDOG_USEC=`; never zero.
    pub silence: Option<Duration>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The program was started.
    Started,
    /// It could not be started. `for_good`: trying again cannot help.
    NotStarted {
        /// Whether that is a wrong command rather than a lack of something.
        for_good: bool,
    },
    /// A readable message of the program.
    Said(Said),
    /// One that cannot be read.
    Garbage,
    /// The main process ended.
    Exited(Exit),
    /// Somebody asks the guard to stop (its signal was passed on).
    StopRequested,
    /// Time has passed, and all that was sent is read.
    Tick,
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the program.
    Start,
    /// The program is ready: tell it.
    Ready,
    /// Kill the program.
    Kill(RestartReason),
    /// It ended; it is started again at this time. Later than now: the pause is announced.
    Restart {
        /// Why it ended.
        reason: RestartReason,
        /// When it is started.
        at: Mono,
    },
    /// The killed program does not end: raise the alarm.
    Alarm {
        /// How long ago it was killed.
        since: Duration,
    },
    /// End with this code.
    End(u8),
}
