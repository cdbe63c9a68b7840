//! The director: drops files, wedges one upload after the other, and waits for what the service
//! and the server tell before it goes on. It never guesses: each step follows an event, and what
//! does not come within a generous bound ends the demo as failed. `narrate` puts it into words.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Event;
use super::cast::Cast;
use super::place::Place;
use super::tell::{Tell, Tone};
use crate::app::End;
use crate::cli::client::Client;
use crate::cli::words::size;
use crate::clock::{Mono, mono};
use crate::config::Setting;
use crate::core::names::Beat;
use crate::lab::{Event as Lab, Expected, Fault, Kind, LabServer, Named, Step, Subscriber};
use crate::metrics::Metrics;

/// How often the server's events and the metrics are looked at; the log wakes at once.
const TURN: Duration = Duration::from_millis(25);
/// How often the service is asked for its status while an upload is wedged.
const ASK: Duration = Duration::from_millis(100);
/// What any step may take before the demo has failed: a fault takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two files once the wedges are over.
const QUIET: Duration = Duration::from_secs(5);
/// A wedged file: larger than what the kernels on both sides would swallow.
const BIG: u64 = 8 << 20;
/// The same where the server reads slowly: a few seconds of it.
const SLOW: u64 = 256 << 10;

/// The route of the demo.
pub(super) const ROUTE: &str = "demo";

/// What a demo is made of.
pub(super) struct Play {
    pub tell: Tell,
    pub named: &'static Named,
    pub rounds: u32,
    /// Goes on after the rounds until a signal comes.
    pub endless: bool,
    pub place: Place,
    /// The service's log is on standard error, not in its file.
    pub log_shown: bool,
    pub settings: Vec<Setting>,
    /// Missed beats that are tolerated.
    pub misses: u32,
    pub metrics: Metrics,
    pub lab: LabServer,
    pub events: Receiver<Event>,
    /// Asks the service to end.
    pub finish: oneshot::Sender<()>,
}

/// Why the play ends before its end.
pub(super) enum Stop {
    /// A signal, or nobody reads any more.
    Asked,
    /// The service is over.
    Over(Result<End, String>),
    /// What had to happen did not.
    Failed(String),
}

/// The wedge of this round.
#[derive(Default)]
pub(super) struct Scene {
    /// The file whose upload meets the fault.
    pub file: String,
    pub struck: Option<Mono>,
    pub verdict: Option<Mono>,
    pub vouched_before: u64,
    pub vouched: bool,
    pub missed: u32,
    /// Its upload has failed, or was ended.
    pub failed: bool,
    /// Its old temp file was dealt with.
    pub fenced: bool,
}

/// What the summary counts.
#[derive(Default)]
pub(super) struct Tally {
    pub causes: Vec<String>,
    pub failures: u32,
    pub released: Vec<String>,
    /// Resets of struck data connections that the server saw, and those told.
    pub resets: usize,
    pub resets_told: usize,
    pub held: usize,
    pub stuck: Duration,
    pub torn: Vec<String>,
}

/// The running story.
pub struct Story {
    pub(super) play: Play,
    pub(super) cast: Cast,
    pub(super) scene: Scene,
    pub(super) tally: Tally,
    /// Sessions that a fault has struck.
    pub(super) sessions: HashSet<u64>,
    /// A pair that has come and waits until another has made room for it.
    pub(super) at_the_door: bool,
    seen: Subscriber,
    http: Option<Client>,
    asked: Mono,
}

impl Story {
    /// A story that has not begun.
    pub(super) fn new(play: Play) -> Self {
        Self {
            cast: Cast::new(play.place.clone()),
            seen: play.lab.events(),
            play,
            scene: Scene::default(),
            tally: Tally::default(),
            sessions: HashSet::new(),
            at_the_door: false,
            http: None,
            asked: Mono::ZERO,
        }
    }

    /// Tells it to its end; whether every file came through whole.
    pub(super) fn tell(mut self) -> bool {
        let stop = self.whole_play().err();
        // The service may have ended by itself.
        let (finish, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.play.finish, finish).send(());
        let (failure, ended) = match stop {
            Some(Stop::Over(ended)) => (None, ended),
            Some(Stop::Failed(why)) => (Some(why), self.ending()),
            Some(Stop::Asked) | None => (None, self.ending()),
        };
        self.summary(failure, ended)
    }

    fn ending(&mut self) -> Result<End, String> {
        loop {
            if let Err(Stop::Over(ended)) = self.turn() {
                return ended;
            }
        }
    }

    fn whole_play(&mut self) -> Result<(), Stop> {
        self.opening()?;
        self.flow()?;
        for round in 1..=self.play.rounds {
            self.round(round)?;
        }
        if self.play.endless {
            self.quietly()
        } else {
            Ok(())
        }
    }

    fn opening(&mut self) -> Result<(), Stop> {
        let http = loop {
            if let Some(client) = &self.http {
                break client.base().to_owned();
            }
            self.turn()?;
        };
        self.introduce(&http);
        Ok(())
    }

    fn flow(&mut self) -> Result<(), Stop> {
        self.play.tell.heading("A few files flow");
        let files = [
            ("hello.txt", 1_200),
            ("empty.dat", 0),
            ("with blanks & ümläuts.bin", 300_000),
        ];
        for (name, bytes) in files {
            self.drop(name, bytes, "")?;
        }
        self.delivered(&files.map(|(name, _)| name))
    }

    fn round(&mut self, number: u32) -> Result<(), Stop> {
        let named = self.play.named;
        let of = if self.play.rounds > 1 {
            format!(" of {}", self.play.rounds)
        } else {
            String::new()
        };
        self.play
            .tell
            .heading(&format!("Round {number}{of}: {}", named.name));
        if strikes_a_new_session(&named.kind) {
            self.new_session()?;
        }
        let big = format!("big-{number}.bin");
        let small = format!("small-{number}.txt");
        self.scene = Scene {
            file: big.clone(),
            vouched_before: self.vouched(),
            ..Scene::default()
        };
        self.play.lab.set_faults(vec![Fault::new(named.kind)]);
        let bytes = if matches!(named.kind, Kind::Trickle { .. }) {
            SLOW
        } else {
            BIG
        };
        self.drop(&big, bytes, "")?;
        let met = self.until(PATIENCE, |s| {
            s.scene.struck.is_some() || s.cast.through(&[&big])
        })?;
        if !met {
            return Err(Stop::Failed(format!(
                "{big} was not taken within {PATIENCE:?}"
            )));
        }
        self.drop(&small, 2_000, "; another uploader is free for it")?;
        self.delivered(&[&small, &big])?;
        if self.scene.struck.is_none() {
            return Err(Stop::Failed(format!(
                "the fault {} did not strike",
                named.name
            )));
        }
        Ok(())
    }

    /// A fault of the greeting or the login strikes only where a session begins.
    fn new_session(&mut self) -> Result<(), Stop> {
        if self.play.lab.counters().sessions_open > 0 {
            self.play.tell.step(
                Tone::Plain,
                "waiting",
                "until idle sessions are closed: this fault needs a new one",
            );
        }
        match self.until(PATIENCE, |s| s.play.lab.counters().sessions_open == 0)? {
            true => Ok(()),
            false => Err(Stop::Failed("idle sessions are not closed".into())),
        }
    }

    fn quietly(&mut self) -> Result<(), Stop> {
        self.play
            .tell
            .heading("From here on a file every few seconds; Ctrl-C ends the demo");
        for number in 1_u64.. {
            let name = format!("later-{number}.txt");
            self.drop(&name, 1_000 + number % 9_000, "")?;
            self.delivered(&[&name])?;
            self.until(QUIET, |_| false)?;
        }
        Ok(())
    }

    fn drop(&mut self, name: &str, bytes: u64, remark: &str) -> Result<(), Stop> {
        let text = format!("{name} ({}) into the spool{remark}", size(bytes));
        self.play.tell.step(Tone::Plain, "dropped", &text);
        let dropped = self.cast.drop(name, bytes);
        dropped.map_err(|e| Stop::Failed(format!("{name} cannot be put into the spool: {e}")))
    }

    fn delivered(&mut self, names: &[&str]) -> Result<(), Stop> {
        match self.until(PATIENCE, |s| s.cast.through(names))? {
            true => Ok(()),
            false => {
                let late = names.iter().filter(|name| !self.cast.through(&[name]));
                let late = late.copied().collect::<Vec<_>>().join(", ");
                Err(Stop::Failed(format!(
                    "{late}: not delivered within {PATIENCE:?}"
                )))
            }
        }
    }

    /// Goes on until `holds`, at most for `bound`.
    fn until(&mut self, bound: Duration, holds: impl Fn(&Self) -> bool) -> Result<bool, Stop> {
        let end = mono() + bound;
        while !holds(self) {
            if mono() >= end {
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    /// Takes what has happened. The server's events come first: they led to what the service
    /// says of them.
    fn turn(&mut self) -> Result<(), Stop> {
        let event = self.play.events.recv_timeout(TURN);
        for event in self.seen.drain() {
            self.saw(event);
        }
        self.watch_the_beats();
        match event {
            Ok(Event::Listening(address)) => self.http = Some(Client::at(address)),
            Ok(Event::Note(note)) => self.heard(&note),
            Ok(Event::Stopping) => {
                self.say_stopping();
                return Err(Stop::Asked);
            }
            Ok(Event::Ended(how)) => return Err(Stop::Over(how)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Stop::Over(Err("the service is gone without a word".into())));
            }
        }
        if self.play.tell.gone() {
            Err(Stop::Asked)
        } else {
            Ok(())
        }
    }

    fn vouched(&self) -> u64 {
        self.play.metrics.beats(ROUTE, Beat::Vouched).get()
    }

    /// While an upload is wedged: what the heartbeat makes of it.
    fn watch_the_beats(&mut self) {
        let wedged = self.scene.struck.is_some() && self.scene.verdict.is_none();
        if !wedged || self.cast.through(&[&self.scene.file]) {
            return;
        }
        let now = mono();
        if now.saturating_sub(self.asked) < ASK {
            return;
        }
        self.asked = now;
        // A status that does not come this time comes the next time.
        let Some(status) = self.http.as_ref().and_then(|client| client.status().ok()) else {
            return;
        };
        let slots = status.routes.iter().flat_map(|route| &route.slots);
        let Some(slot) = slots
            .clone()
            .find(|slot| slot.file.as_deref() == Some(&self.scene.file))
        else {
            return;
        };
        if !self.scene.vouched && self.vouched() > self.scene.vouched_before {
            self.scene.vouched = true;
            self.say_vouched(&slot.phase);
        }
        if slot.failures > self.scene.missed {
            self.say_missed(slot.failures);
        }
        self.scene.missed = slot.failures;
    }

    /// Whether the fault's end is a verdict of the heartbeat.
    pub(super) fn expects(&self, expected: Expected) -> bool {
        self.play.named.expected == expected
    }

    /// Notes what the server tells.
    fn saw(&mut self, event: Lab) {
        match event {
            Lab::Struck { session, .. } => {
                self.sessions.insert(session);
                self.scene.struck = Some(mono());
                self.say_struck();
            }
            Lab::DataEnded { session, how, .. } => self.say_data_ended(session, how),
            Lab::Deleted { path, .. } => self.say_deleted(&path),
            // From one temp name to another.
            Lab::Renamed { from, to, .. } if to.ends_with(".part") => self.say_renamed(&from),
            Lab::SessionOpened { .. }
            | Lab::LoggedIn { .. }
            | Lab::Command { .. }
            | Lab::Thawed { .. }
            | Lab::Secured { .. }
            | Lab::DataConnected { .. }
            | Lab::Storing { .. }
            | Lab::Stored { .. }
            | Lab::Renamed { .. }
            | Lab::Ended { .. } => {}
        }
    }
}

/// Whether the fault strikes before the login is done.
fn strikes_a_new_session(kind: &Kind) -> bool {
    match kind {
        Kind::NoReply(step)
        | Kind::DeadPathAt(step)
        | Kind::Garbage(step)
        | Kind::Endless(step)
        | Kind::Reply(step, _)
        | Kind::HangUp(step) => before_login(*step),
        Kind::Drip { step, .. } => before_login(*step),
        Kind::LoginRefused | Kind::Seats { .. } | Kind::Injected => true,
        _ => false,
    }
}

fn before_login(step: Step) -> bool {
    matches!(
        step,
        Step::Greeting | Step::Auth | Step::Tls | Step::User | Step::Pass
    )
}
