//! The thread `pulse`: it waits for the next tick or for something to say, and does nothing else
//! than that, one read of the loop's facts and one send. What the watcher's queue did not take is
//! said again in its order; beats are not: the next one is as good.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crossbeam_channel::{Sender, select};
use slog::{Logger, warn};

use super::socket::Watcher;
use super::{Ask, Ears, Event, line};
use crate::clock::{self, Mono};
use crate::core::assist::{Beats, By, Software, Terms, Units};
use crate::sys::thread::Watch;

/// A watcher that does not listen is complained of no more often.
const COMPLAIN: Mono = Mono::from_secs(60);
/// The first pause before something is said again; doubled up to a pulse.
const AGAIN: Duration = Duration::from_millis(50);
/// Things said that the watcher has not heard; beyond that the oldest are stale.
const OWED: usize = 16;
/// So much time a slow start asks for at each pulse, or four pulses if that is more: one that
/// comes late must not end it.
const EXTENDED: Duration = Duration::from_secs(10);

/// See the module.
pub struct Pulse {
    watcher: Watcher,
    terms: Terms,
    beats: Beats,
    units: Units,
    ears: Ears,
    log: Logger,
    thread: Option<Watch>,
    ask: Option<Ask>,
    /// What the start waits for, and when it last said so.
    waits: Option<(&'static str, Mono)>,
    status: String,
    /// The last reload was.
    refused: bool,
    owed: VecDeque<String>,
    again: Duration,
    complained: Option<Mono>,
}

impl Pulse {
    /// One that does not run yet.
    pub fn new(watcher: Watcher, terms: Terms, units: Units, ears: Ears, log: &Logger) -> Self {
        Self {
            watcher,
            terms,
            beats: Beats::new(terms, clock::mono()),
            units,
            ears,
            log: log.clone(),
            thread: None,
            ask: None,
            waits: None,
            status: String::new(),
            refused: false,
            owed: VecDeque::new(),
            again: AGAIN,
            complained: None,
        }
    }

    /// Runs on a thread of its own, with a first pulse at once.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut self) -> io::Result<()> {
        std::thread::Builder::new()
            .name("pulse".into())
            .spawn(move || {
                self.say(format!("X_FTPULSE_PULSE=1\n{}", line("starting")));
                if let Some(answer) = self.run() {
                    // Whoever waited may be gone.
                    let _ = answer.send(());
                }
            })?;
        Ok(())
    }

    /// Answers who is to be told of its end; none if nobody can say anything any more.
    fn run(&mut self) -> Option<Sender<()>> {
        loop {
            let left = self.next().saturating_sub(clock::mono());
            let event = select! {
                recv(self.ears.turns) -> status => Heard::Turned(status.ok()?),
                recv(self.ears.events) -> event => Heard::Event(event.ok()?),
                default(left) => Heard::Nothing,
            };
            match event {
                Heard::Turned(status) => self.turned(status),
                Heard::Event(Event::End(answer)) => {
                    self.pay();
                    return Some(answer);
                }
                Heard::Event(event) => self.take(event),
                Heard::Nothing => {}
            }
            self.tick();
        }
    }

    fn next(&self) -> Mono {
        let tick = self.beats.next();
        if self.owed.is_empty() {
            tick
        } else {
            tick.min(clock::mono() + self.again)
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Loop(watch) => {
                self.units.another_thread();
                self.thread = Some(watch);
            }
            Event::Ask(ask) => self.ask = Some(ask),
            Event::Waits(why) => self.waits = why.map(|why| (why, clock::mono())),
            Event::Ready => self.beats.begin(clock::mono()),
            Event::Reloaded { refused } => self.refused = refused,
            Event::Say(assignments) => self.say(assignments),
            Event::End(_) => {}
        }
    }

    fn turned(&mut self, status: String) {
        self.status = status;
        if let Some(late) = self.beats.turned(clock::mono()) {
            self.beat(Some(late));
        }
    }

    fn tick(&mut self) {
        self.pay();
        let now = clock::mono();
        if now < self.beats.next() {
            return;
        }
        let seen = self.thread.as_ref().and_then(|thread| thread.look(false));
        let yes = self.units.ask(seen);
        let Some(tick) = self.beats.tick(now, yes) else {
            return;
        };
        if self.beats.begun() {
            self.beat(tick.software);
        } else {
            self.starting(tick.vouched);
        }
        if tick.ask && self.ask.as_ref().is_some_and(|ask| ask()) {
            self.beats.asked();
        }
    }

    /// A pulse, and the software beat with it.
    fn beat(&mut self, software: Option<Software>) {
        let mut said = String::from("X_FTPULSE_PULSE=1");
        if let Some(beat) = software {
            let status = match beat.by {
                By::Loop if self.refused => {
                    line(&format!("{}; the last reload was refused", self.status))
                }
                By::Loop => line(&self.status),
                By::Unit(id) => line(&format!("busy, and getting on: {id}")),
            };
            said = format!("{said}\nWATCHDOG=1\n{status}");
        }
        match (self.watcher.send(&said), software) {
            (Ok(()), Some(beat)) => self.beats.sent(beat),
            (Ok(()), None) => {}
            (Err(error), _) => self.complain(&error),
        }
    }

    /// A pulse of a service that is not up yet, and more time where it is slow for a good reason.
    fn starting(&mut self, vouched: Option<&'static str>) {
        let busy = vouched.map(|id| format!("starting, and getting on: {id}"));
        // Whoever waits says so again and again: a try that hangs gets no more time.
        let waits = self
            .waits
            .filter(|(_, told)| clock::mono() < *told + EXTENDED)
            .map(|(why, _)| format!("starting: it waits for {why}"));
        let said = match waits.or(busy) {
            None => "X_FTPULSE_PULSE=1".to_owned(),
            Some(status) => {
                let usec = EXTENDED.max(self.terms.pulse() * 4).as_micros();
                let status = line(&status);
                format!("X_FTPULSE_PULSE=1\nEXTEND_TIMEOUT_USEC={usec}\n{status}")
            }
        };
        if let Err(error) = self.watcher.send(&said) {
            self.complain(&error);
        }
    }

    /// Says it after all that is owed.
    fn say(&mut self, assignments: String) {
        if self.owed.len() >= OWED {
            self.owed.pop_front();
        }
        self.owed.push_back(assignments);
        self.pay();
    }

    fn pay(&mut self) {
        while let Some(assignments) = self.owed.front() {
            if let Err(error) = self.watcher.send(assignments) {
                self.again = (self.again * 2).min(self.terms.pulse());
                return self.complain(&error);
            }
            self.owed.pop_front();
            self.again = AGAIN;
        }
    }

    fn complain(&mut self, error: &io::Error) {
        let now = clock::mono();
        if self.complained.is_none_or(|at| now >= at + COMPLAIN) {
            self.complained = Some(now);
            warn!(self.log, "the watchdog does not take what it is told"; "error" => error.to_string(),
                "next" => "it is told again; files are sent meanwhile");
        }
    }
}

/// What woke the thread.
enum Heard {
    Turned(String),
    Event(Event),
    Nothing,
}
