//! The side of the service: what it tells whoever watches it (sd_notify(3), S5). A thread of its own,
//! `pulse`, says everything, so that nothing overtakes anything: pulses that no busy loop can
//! starve, the software beat on the word of the loop or of an assist unit (`core::assist`), and what
//! becomes of the service. It never waits for the watcher: a beat that its queue does not take was
//! not sent. Where nobody watches there is no thread, and each call does nothing.
//!
//! READY=1 says that the service is up and answers HTTP, not that all is well: a full disk or a
//! spool that is not there is told by `/readyz` and by STATUS, since a restart would not mend it.

mod pulse;
pub(super) mod socket;

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use slog::{Logger, info, warn};

use self::pulse::Pulse;
pub use self::socket::{INTERVALS, Watcher};
use crate::clock;
use crate::core::assist::{Counters, Terms};
use crate::sys::thread::Watch;

/// Things to say that may wait for the thread: more than a start and an end have.
const WAITING: usize = 16;
/// How long the end of the process waits for its last words. They take microseconds.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The longest STATUS, in characters: a line that a person reads.
const STATUS_MAX: usize = 300;

/// Asks the loop to go round once and to call [`Watched::turned`]; false if it cannot be asked now.
pub type Ask = Box<dyn Fn() -> bool + Send>;

/// What the thread is told.
enum Event {
    /// This is the loop's thread from now on.
    Loop(Watch),
    /// So the loop is asked.
    Ask(Ask),
    /// The start waits for something outside, or no more.
    Waits(Option<&'static str>),
    /// The loop runs.
    Ready,
    /// What became of the last reload.
    Reloaded { refused: bool },
    /// Assignments for the watcher.
    Say(String),
    /// Say what is left and answer.
    End(Sender<()>),
}

/// The service as somebody watches it; copies speak to the same watcher. The default is a service
/// that nobody watches.
#[derive(Clone, Default)]
pub struct Watched {
    counters: Counters,
    told: Option<Told>,
}

#[derive(Clone)]
struct Told {
    events: Sender<Event>,
    turns: Sender<String>,
}

impl Watched {
    /// Begins to send pulses to the watcher, if there is one; the calling thread is the one that
    /// may be busy until [`Watched::loop_is_here`] is called on another. `demanded` times are the
    /// watcher's. A thread that cannot be had is told and done without.
    pub fn by(
        watcher: Option<Watcher>,
        terms: impl FnOnce(Option<Duration>) -> Terms,
        log: &Logger,
    ) -> Self {
        let counters = Counters::default();
        let Some(watcher) = watcher else {
            return Self {
                counters,
                told: None,
            };
        };
        let terms = terms(watcher.within());
        let (events, heard) = bounded(WAITING);
        // One is asked at a time.
        let (turns, turned) = bounded(1);
        let ears = Ears {
            events: heard,
            turns: turned,
        };
        info!(log, "a watchdog is told"; "pulse_seconds" => terms.pulse().as_secs_f64(),
            "software_seconds" => terms.software().as_secs_f64(),
            "next" => "it restarts this process when beats of one kind stay away");
        match Pulse::new(watcher, terms, counters.units(), ears, log).start() {
            Ok(()) => {
                let watched = Self {
                    counters,
                    told: Some(Told { events, turns }),
                };
                watched.loop_is_here();
                watched
            }
            Err(error) => {
                warn!(log, "no thread for the beats"; "error" => error.to_string(),
                    "next" => "the watchdog is told nothing, and restarts this process");
                Self {
                    counters,
                    told: None,
                }
            }
        }
    }

    /// Whether anybody is told anything.
    pub fn is_watched(&self) -> bool {
        self.told.is_some()
    }

    /// What the units count.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The calling thread is the loop's, or does its work until there is a loop.
    pub fn loop_is_here(&self) {
        if self.told.is_some()
            && let Ok(watch) = Watch::of_this_thread()
        {
            // Without it no unit ever says yes, which is the safe side.
            self.tell(Event::Loop(watch));
        }
    }

    /// How the loop is asked.
    pub fn ask_by(&self, ask: Ask) {
        self.tell(Event::Ask(ask));
    }

    /// The loop went round; `status` is what it says of itself. Never waits.
    pub fn turned(&self, status: String) {
        if let Some(told) = &self.told {
            match told.turns.try_send(status) {
                // One that is full has an answer that nobody has heard yet.
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// The start waits for something that a restart would not bring (`Some`), or no more. While it
    /// does, and says so again within ten seconds, the watcher is asked for more time.
    pub fn waits(&self, why: Option<&'static str>) {
        self.tell(Event::Waits(why));
    }

    /// The service is up: software beats begin.
    pub fn ready(&self, status: &str) {
        let pid = std::process::id();
        self.say(&format!(
            "READY=1\nX_FTPULSE_PULSE=1\nMAINPID={pid}\n{}",
            line(status)
        ));
        self.tell(Event::Ready);
    }

    /// A reload begins.
    pub fn reloading(&self) {
        if self.is_watched() {
            let now = clock::kernel_usec();
            self.say(&format!(
                "RELOADING=1\nMONOTONIC_USEC={now}\n{}",
                line("reading the configuration anew")
            ));
        }
    }

    /// It is over, whatever came of it; of one that was `refused` each later STATUS tells as well,
    /// until the next.
    pub fn reloaded(&self, status: &str, refused: bool) {
        self.tell(Event::Reloaded { refused });
        self.say(&format!("READY=1\n{}", line(status)));
    }

    /// The service ends, within `bound` at most: it may take longer than the watcher knows.
    pub fn stopping(&self, bound: Duration) {
        let usec = bound.as_micros();
        let status = line("draining: what is in work is finished, nothing new is begun");
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}\n{status}"));
    }

    /// What a person reads there until the next software beat.
    pub fn status(&self, status: &str) {
        self.say(&line(status));
    }

    /// Says what is left to be said and ends the thread; holds the caller half a second at most.
    pub fn end(&self) {
        let (answer, answered) = bounded(1);
        self.tell(Event::End(answer));
        if self.is_watched() {
            // Late or gone: the process ends in any case.
            let _ = answered.recv_timeout(LAST_WORDS);
        }
    }

    fn say(&self, assignments: &str) {
        if self.is_watched() {
            self.tell(Event::Say(assignments.to_owned()));
        }
    }

    fn tell(&self, event: Event) {
        if let Some(told) = &self.told {
            // The thread takes them as they come and waits for nobody; gone is ended.
            let _ = told.events.send(event);
        }
    }
}

/// What the thread hears.
struct Ears {
    events: Receiver<Event>,
    turns: Receiver<String>,
}

/// A `STATUS=` of one line that is short enough.
fn line(status: &str) -> String {
    let status: String = crate::log::escape(status)
        .chars()
        .take(STATUS_MAX)
        .collect();
    format!("STATUS={status}")
}
