//! The guard: it starts one program, watches it, kills it and starts it again (S4). One thread and
//! one `poll` over the program's messages, the end of its main process (pidfd) and the guard's own
//! signals; `core::watch` decides. Nothing in the loop waits for anything else: lines of the log are
//! written by a thread of their own (a standard error that nobody reads would hold the guard), and
//! so is the file of the counts.
//!
//! As PID 1, or as the subreaper that it makes itself otherwise, it reaps every orphan.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use slog::{Logger, crit, debug, error, info, warn};

use super::child::Processes;
pub use super::child::Program;
use super::counts::{Book, Counts};
use super::message::{self, LONGEST, Message};
use super::tell::{End, Reminder, Span, why, why_it_ends};
use super::upwards::Upwards;
use crate::clock::{self, Mono};
use crate::core::names::RestartReason;
use crate::core::restart::LAST;
use crate::core::watch::{Action, Event, Exit, Terms, Watch};
use crate::log::escape;
use crate::sys::memory;
use crate::sys::notify::Inbox;
use crate::sys::process::{Signals, adopt_orphans, reap_orphans, state};
use crate::token;

/// Messages that are read before the time is looked at: whoever floods the socket must not hold
/// the guard. More than a queue holds (`net.unix.max_dgram_qlen`, 10 to 512).
const BATCH: usize = 1024;

/// So many messages of strangers at once are a flood: most beats find the queue full then.
const FLOOD: u64 = 64;
/// How long a flood is an excuse.
const EXCUSE: Duration = Duration::from_secs(5);
/// In a flood silence is judged only after that long without a word of the program, in which a
/// healthy one gets some through.
const FLOODED: Duration = Duration::from_secs(30);

/// A stop signal that follows another one so soon is the same one, sent twice (`timeout` sends it to
/// the process and to its group): it must not cut the drain short.
const SAME_STOP: Duration = Duration::from_millis(200);

/// Everything that a guard needs to know.
#[derive(Debug)]
pub struct Setup {
    /// What it watches.
    pub program: Program,
    /// How.
    pub terms: Terms,
    /// Where the counts are kept; none: nowhere.
    pub book: Option<Book>,
}

/// Watches the program until it ends for good; the exit code that tells of it.
///
/// # Errors
/// The guard itself cannot work: no socket, no process to be made an orphan's parent.
pub fn run(setup: Setup, signals: &Signals, log: &Logger) -> io::Result<u8> {
    adopt_orphans()?;
    let inbox = Inbox::open(&format!("ftpulse/{}{}", token::new(), token::new()))?;
    let (up, wrong) = Upwards::of_process();
    if let Some(wrong) = wrong {
        warn!(log, "nobody above is told"; "error" => wrong,
            "next" => "the program is watched all the same");
    }
    let mut guard = Guard {
        watch: Watch::new(setup.terms, clock::mono()),
        counts: Counts::default(),
        setup,
        processes: Processes::default(),
        up,
        log,
        life: Life::default(),
        last: None,
        strangers: Reminder::default(),
        claims: Reminder::default(),
        flood: None,
        garbage: Reminder::default(),
        stop: None,
    };
    guard.read_counts();
    guard.watch_on(&inbox, signals)
}

struct Guard<'a> {
    setup: Setup,
    watch: Watch,
    processes: Processes,
    counts: Counts,
    up: Upwards,
    log: &'a Logger,
    life: Life,
    /// The end of the last life, until the next one begins.
    last: Option<End>,
    strangers: Reminder,
    /// Of a main process, not believed.
    claims: Reminder,
    /// When strangers flooded the socket last.
    flood: Option<Mono>,
    garbage: Reminder,
    /// When the last stop signal came.
    stop: Option<Mono>,
}

/// What is told of a life.
#[derive(Debug, Default)]
struct Life {
    began: Mono,
    heard: Option<Mono>,
    killed: Option<Mono>,
    stopping: bool,
}

impl Life {
    /// When the program was heard last, or began.
    fn last_word(&self) -> Mono {
        self.heard.unwrap_or(self.began)
    }
}

impl Guard<'_> {
    fn watch_on(&mut self, inbox: &Inbox, signals: &Signals) -> io::Result<u8> {
        let mut waits_for_left_overs = None;
        loop {
            self.wait(inbox, signals, waits_for_left_overs)?;
            let now = clock::mono();
            // In this order: what was sent before an end counts for that life, and a stop that
            // came with it is known when the end is judged.
            let before = self.counts.strangers;
            self.read_messages(inbox, now);
            if self.counts.strangers - before >= FLOOD {
                self.flood = Some(now);
            }
            if let Some(code) = self.read_signals(signals, inbox, now) {
                return Ok(code);
            }
            let exit = self.processes.ended(now);
            if let Some(code) = exit.and_then(|exit| self.exited(exit, inbox, now)) {
                return Ok(code);
            }
            reap_orphans(self.processes.main());
            self.up.turn(now);
            waits_for_left_overs = self.processes.left_overs(now);
            let idle = self.processes.main().is_none();
            if idle && waits_for_left_overs.is_some() {
                continue;
            }
            if self.watch.judges() && self.is_drowned(now) {
                // What is due stays so: looked at again a little later.
                waits_for_left_overs = Some(now + EXCUSE / 50);
                continue;
            }
            waits_for_left_overs = None;
            let answer = self.watch.on(Event::Tick, now);
            if let Some(code) = self.act(answer, inbox, now) {
                return Ok(code);
            }
        }
    }

    /// Waits for whatever comes first.
    fn wait(&self, inbox: &Inbox, signals: &Signals, look: Option<Mono>) -> io::Result<()> {
        // While left-overs are waited for the start may be long due.
        let due = look.or(self.watch.next_deadline());
        let due = due.into_iter().chain(self.up.due(clock::mono())).min();
        let left = due.map(|due| due.saturating_sub(clock::mono()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = Vec::with_capacity(3);
        fds.push(PollFd::new(inbox, PollFlags::IN));
        fds.push(PollFd::new(signals, PollFlags::IN));
        fds.extend(
            self.processes
                .main()
                .map(|main| PollFd::new(main, PollFlags::IN)),
        );
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_drowned(&self, now: Mono) -> bool {
        let flooded = self.flood.is_some_and(|at| now < at + EXCUSE);
        flooded && now < self.life.last_word() + FLOODED
    }

    /// Reads what was sent.
    fn read_messages(&mut self, inbox: &Inbox, now: Mono) {
        let mut buffer = [0; LONGEST];
        for _ in 0..BATCH {
            match inbox.receive(&mut buffer) {
                Ok(Some(letter)) => {
                    let text = buffer.get(..letter.length).unwrap_or_default();
                    let read = message::read(text, letter.cut);
                    let answer = self.heard(read, letter.sender, now);
                    drop(letter);
                    // Nothing of a message can end the guard.
                    self.act(answer, inbox, now);
                }
                // An error of one message (ENOMEM) is that message's; time goes on.
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn heard(
        &mut self,
        read: Result<Message, &'static str>,
        sender: Option<u32>,
        now: Mono,
    ) -> Option<Action> {
        let main_pid = read.as_ref().ok().and_then(|message| message.main_pid);
        if let Some(pid) = main_pid {
            match self.processes.move_to(pid, sender) {
                Ok(false) => {}
                Ok(true) => info!(self.log, "another main process"; "pid" => pid,
                    "next" => "it is watched in the place of the one that was started"),
                Err(why) => {
                    if let Some(count) = self.claims.one_more(now) {
                        warn!(self.log, "MAINPID is not believed"; "pid" => pid,
                            "error" => why, "count" => count,
                            "next" => "the watched process stays the same; told again in a minute \
                                at most");
                    }
                }
            }
        }
        if !self.processes.own(sender) {
            self.counts.strangers += 1;
            if let Some(count) = self.strangers.one_more(now) {
                warn!(self.log, "messages of strangers"; "count" => count,
                    "pid" => sender.unwrap_or(0),
                    "next" => "they change nothing; the next ones are told in a minute");
            }
            return None;
        }
        let message = match read {
            Ok(message) => message,
            Err(why) => {
                if let Some(count) = self.garbage.one_more(now) {
                    warn!(self.log, "unreadable messages"; "error" => why, "count" => count,
                        "next" => "each counts as a missed beat; told again in a minute at most");
                }
                return self.watch.on(Event::Garbage, now);
            }
        };
        if let Some(status) = &message.status {
            debug!(self.log, "status"; "text" => &*escape(status));
        }
        self.life.heard = Some(now);
        self.life.stopping |= message.said.stopping;
        self.up
            .pass_on(&message, self.life.stopping || !self.watch.ready());
        self.watch.on(Event::Said(message.said), now)
    }

    fn read_signals(&mut self, signals: &Signals, inbox: &Inbox, now: Mono) -> Option<u8> {
        while let Some(number) = signals.next() {
            match number {
                // Ends are read anyway.
                libc::SIGCHLD => {}
                libc::SIGTERM | libc::SIGINT if self.is_same_stop(now) => {}
                libc::SIGTERM | libc::SIGINT => {
                    let name = if number == libc::SIGTERM {
                        "TERM"
                    } else {
                        "INT"
                    };
                    info!(self.log, "stop asked for"; "signal" => name,
                        "next" => "it is passed on; the program ends by itself, or is killed");
                    self.up.tell("STOPPING=1");
                    self.life.stopping = true;
                    self.processes.signal(number);
                    let answer = self.watch.on(Event::StopRequested, now);
                    if let Some(code) = self.act(answer, inbox, now) {
                        return Some(code);
                    }
                }
                other => self.processes.signal(other),
            }
        }
        None
    }

    fn is_same_stop(&mut self, now: Mono) -> bool {
        let before = self.stop.replace(now);
        before.is_some_and(|before| now < before + SAME_STOP)
    }

    fn exited(&mut self, exit: Exit, inbox: &Inbox, now: Mono) -> Option<u8> {
        self.last = Some(End {
            exit,
            reason: RestartReason::Exit,
            event: self.life.killed.unwrap_or(now),
            paused: false,
        });
        let answer = self.watch.on(Event::Exited(exit), now);
        self.act(answer, inbox, now)
    }

    /// Does what was decided; the exit code if it is to end.
    fn act(&mut self, answer: Option<Action>, inbox: &Inbox, now: Mono) -> Option<u8> {
        match answer? {
            Action::Start => return self.start(inbox),
            Action::Ready => {
                info!(self.log, "program ready"; "life" => self.watch.lives(),
                    "after" => %Span(now.saturating_sub(self.life.began)),
                    "next" => "its beats are watched");
                self.setup.program.once = None;
                self.up.ready(now);
                // From here on it only listens: what the start has touched may go.
                memory::shed();
            }
            Action::Kill(reason) => self.kill(reason, now),
            Action::Restart { reason, at } => self.ended(reason, at, now),
            Action::Alarm { since } => {
                let pid = self.processes.main().map_or(0, |main| main.pid());
                let state = state(pid).unwrap_or('?').to_string();
                crit!(self.log, "program cannot be killed"; "pid" => pid, "state" => state,
                    "since" => %Span(since),
                    "next" => "no second copy is started; it goes on as soon as this one ends");
                self.up
                    .tell("STATUS=the program was killed but does not end (a disk that hangs?)");
            }
            Action::End(code) => {
                let how = self.last.map(|end| end.to_string()).unwrap_or_default();
                info!(self.log, "watchdog ends"; "code" => code, "program" => how,
                    "lives" => self.watch.lives(), "next" => why_it_ends(code, self.life.stopping));
                return Some(code);
            }
        }
        None
    }

    fn start(&mut self, inbox: &Inbox) -> Option<u8> {
        // What dead processes sent is thrown away.
        while let Ok(Some(_)) = inbox.receive(&mut []) {}
        let Setup { program, terms, .. } = &self.setup;
        let started = self.processes.start(program, inbox.address(), terms);
        let now = clock::mono();
        self.life = Life {
            began: now,
            ..Life::default()
        };
        match started {
            Ok(pid) => {
                let answer = self.watch.on(Event::Started, now);
                self.tell_start(pid, now);
                self.act(answer, inbox, now)
            }
            Err(error) => {
                let for_good = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) || error.raw_os_error() == Some(libc::ENOEXEC);
                let path = self.setup.program.path.as_encoded_bytes();
                error!(self.log, "program cannot be started";
                    "program" => &*crate::log::escape_bytes(path), "error" => error.to_string(),
                    "next" => "tried again after a pause; one that never ran ends the watch");
                self.last = Some(End {
                    exit: Exit::Unknown,
                    reason: RestartReason::Exit,
                    event: now,
                    paused: false,
                });
                let answer = self.watch.on(Event::NotStarted { for_good }, now);
                self.act(answer, inbox, now)
            }
        }
    }

    fn tell_start(&mut self, pid: u32, now: Mono) {
        let life = self.watch.lives();
        let Some(end) = self.last.take() else {
            info!(self.log, "program started"; "pid" => pid, "life" => life,
                "next" => "it has to say that it is ready");
            return;
        };
        let after = now.saturating_sub(end.event);
        warn!(self.log, "watchdog restart"; "reason" => end.reason.as_str(), "life" => life,
            "program" => %end, "after" => %Span(after), "paused" => end.paused, "pid" => pid,
            "restarts" => self.counts.of(end.reason),
            "next" => "it has to say that it is ready");
        let text = format!("STATUS=started again ({}, {end}), life {life}", end.reason);
        self.up.tell(text);
    }

    fn kill(&mut self, reason: RestartReason, now: Mono) {
        let heard = self.life.last_word();
        warn!(self.log, "program killed"; "reason" => reason.as_str(),
        "why" => why(reason), "silent" => %Span(now.saturating_sub(heard)),
        "life" => self.watch.lives(), "next" => match self.life.stopping {
            true => "the stop goes on as soon as it has ended",
            false => "it is started again as soon as it has ended",
        });
        self.life.killed = Some(now);
        self.processes.kill();
    }

    fn ended(&mut self, reason: RestartReason, at: Mono, now: Mono) {
        let pause = at.saturating_sub(now);
        if let Some(end) = &mut self.last {
            end.reason = reason;
            end.paused = !pause.is_zero();
            if end.paused {
                let (pause, text) = (Span(pause), end.to_string());
                let next = "started again after the pause";
                let why = "it did not last: pauses double until a life lasts";
                if pause.0 < LAST {
                    warn!(self.log, "watchdog pause"; "reason" => reason.as_str(),
                        "program" => text, "pause" => %pause, "why" => why, "next" => next);
                } else {
                    crit!(self.log, "watchdog pause"; "reason" => reason.as_str(),
                        "program" => text, "pause" => %pause, "why" => why, "next" => next);
                }
            }
        }
        self.counts.add(reason);
        self.write_counts();
    }

    fn read_counts(&mut self) {
        let Some(book) = &self.setup.book else { return };
        match book.read() {
            Ok(counts) => self.counts = counts,
            Err(error) => warn!(self.log, "restart counts cannot be read";
                "path" => book.path().display().to_string(), "error" => error,
                "next" => "they begin at 0"),
        }
    }

    fn write_counts(&mut self) {
        let Some(book) = &mut self.setup.book else {
            return;
        };
        if let Err(error) = book.write(&self.counts) {
            warn!(self.log, "restart counts cannot be kept";
                "path" => book.path().display().to_string(), "error" => error,
                "next" => "they are kept in memory; the program is started all the same");
        }
    }
}
