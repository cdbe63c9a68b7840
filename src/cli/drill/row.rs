//! One row of the drill: its server, its route, its file, and what was seen from the fault's
//! strike to the delivery. It judges what it saw against the row; it never stops the others.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;

use super::matrix::{Row, SIZE, Way, What};
use super::watch::{self, FinalName};
use super::wedge;
use crate::cli::stage::content;
use crate::cli::tap::Note;
use crate::clock::{Mono, mono};
use crate::config::Config;
use crate::lab::{Event, Expected, Fault, LabServer, Script, Subscriber, Tls};
use crate::pulse::Sabotage;

/// The file of every row.
const FILE: &str = "file.bin";
/// What a row may take beyond the bound of its fault and the longest back-off.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the service told of the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// As a deadlock.
    Deadlock,
    /// As a timeout.
    Timeout,
    /// As an error.
    Error,
    /// Not at all.
    Nothing,
}

/// What was seen in one row. Times are seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The fault.
    pub fault: &'static str,
    /// As what it was found.
    pub found: Found,
    /// The cause that was named.
    pub cause: Option<String>,
    /// The cause that should be.
    pub expected_cause: Option<&'static str>,
    /// From the strike to the finding.
    pub found_after: Option<f64>,
    /// Within which it should be found.
    pub bound: f64,
    /// From the strike to the delivery.
    pub delivered_after: Option<f64>,
    /// Whether a part of the file was ever seen under its final name.
    pub torn: bool,
    /// Bytes handed to the kernel beyond the file's own.
    pub bytes_sent_again: u64,
    /// The longest time from one good beat of the uploader to the next.
    pub stuck: Option<f64>,
    /// Why the row proves nothing under these settings.
    pub unproven: Option<&'static str>,
    /// What is wrong with the row; empty if nothing is.
    pub faults: Vec<String>,
}

/// A row that stands ready: its server runs, its folders are made.
pub struct Stand {
    row: Row,
    route: String,
    lab: LabServer,
    active: bool,
    spool: PathBuf,
    staging: PathBuf,
    /// The server's CA, where it speaks TLS.
    ca: Option<PathBuf>,
    events: Subscriber,
    story: Subscriber,
    notes: Receiver<(Mono, Note)>,
}

impl Stand {
    /// Makes the folders below `dir` and starts the server.
    ///
    /// # Errors
    /// What could not be had.
    pub fn make(
        row: Row,
        way: Way,
        number: usize,
        dir: &std::path::Path,
        notes: Receiver<(Mono, Note)>,
    ) -> io::Result<Self> {
        let dir = dir.join(row.name);
        let [spool, staging, server] = ["spool", "staging", "server"].map(|leaf| dir.join(leaf));
        for folder in [&spool, &staging] {
            std::fs::create_dir_all(folder)?;
        }
        let mut script = match row.what {
            What::Server(kind) => Fault::new(kind).first(1).into(),
            What::Inside(_) => Script::healthy(),
        };
        if way.tls {
            script = script.over(Tls::explicit());
        }
        let lab = LabServer::start(server, script)?;
        let ca = match lab.ca() {
            Some(pem) => {
                let path = dir.join("ca.pem");
                std::fs::write(&path, pem)?;
                Some(path)
            }
            None => None,
        };
        Ok(Self {
            route: format!("drill{number}"),
            events: lab.events(),
            story: lab.events(),
            row,
            lab,
            active: way.active,
            spool,
            staging,
            ca,
            notes,
        })
    }

    /// The row.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// The route's name.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The route's settings, by key.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut url = self.lab.url("in");
        if matches!(self.row.what, What::Inside(super::matrix::Inner::Resolver)) {
            url = url.replace("127.0.0.1", "localhost");
        }
        let mode = if self.active { "active" } else { "passive" };
        let mut settings = vec![
            ("spool", self.spool.to_string_lossy().into_owned()),
            ("server", url),
            ("password", self.lab.password().to_owned()),
            ("uploaders", "1".to_owned()),
            ("settle", "100ms".to_owned()),
            ("mode", mode.to_owned()),
        ];
        if let Some(ca) = &self.ca {
            settings.push(("ca_file", ca.to_string_lossy().into_owned()));
        }
        settings
    }

    /// Drops the file and follows it to its delivery.
    pub fn run(mut self, config: &Config, sabotage: &Sabotage) -> Outcome {
        let mut outcome = Outcome {
            fault: self.row.name,
            found: Found::Nothing,
            cause: None,
            expected_cause: self.row.cause.map(|c| c.as_str()),
            found_after: None,
            bound: self.row.bound.as_secs_f64(),
            delivered_after: None,
            torn: false,
            bytes_sent_again: 0,
            stuck: None,
            unproven: self.row.unproven,
            faults: Vec::new(),
        };
        if let Err(error) = self.follow(&mut outcome, config, sabotage) {
            outcome.faults.push(error);
        }
        self.check_file(&mut outcome);
        self.judge(&mut outcome);
        outcome
    }

    fn follow(
        &mut self,
        outcome: &mut Outcome,
        config: &Config,
        sabotage: &Sabotage,
    ) -> Result<(), String> {
        let lock = Arc::new(Mutex::new(()));
        let mut armed = match self.row.what {
            What::Server(_) => None,
            What::Inside(inner) => Some(
                wedge::arm(inner, &self.route, sabotage, &lock)
                    .map_err(|e| format!("the wedge cannot be armed: {e}"))?,
            ),
        };
        self.drop_file()
            .map_err(|e| format!("the file cannot be dropped: {e}"))?;
        let struck = match &armed {
            Some(armed) => armed.struck().recv_timeout(PATIENCE).is_ok(),
            None => self
                .events
                .wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE)
                .is_some(),
        };
        if !struck {
            return Err("the fault did not strike".to_owned());
        }
        let began = mono();
        // Two failures can come before the delivery, each with the longest pause there is.
        let pauses = config.retry.max.mul_f64(2.0 * (1.0 + config.retry.jitter));
        let end = began + self.row.bound + pauses + PATIENCE;
        let mut sent = 0;
        loop {
            let (at, note) = match self.notes.recv_timeout(end.saturating_sub(mono())) {
                Ok(noted) => noted,
                Err(RecvTimeoutError::Timeout) => return Err("never delivered".to_owned()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the service ended before the file was delivered".to_owned());
                }
            };
            let after = at.saturating_sub(began).as_secs_f64();
            match note.message.as_str() {
                "deadlock found" => outcome.find(Found::Deadlock, &note, after),
                "upload failed" | "the destination gives no session" => {
                    sent += note.number("bytes_sent") as u64;
                    let as_what = if note.fact("cause").is_empty() {
                        Found::Error
                    } else {
                        Found::Timeout
                    };
                    outcome.find(as_what, &note, after);
                }
                "file delivered" => {
                    sent += note.number("bytes_sent") as u64;
                    outcome.delivered_after = Some(after);
                    outcome.bytes_sent_again = sent.saturating_sub(SIZE);
                    return Ok(());
                }
                _ => {}
            }
            if matches!(self.row.what, What::Inside(super::matrix::Inner::Resolver))
                && outcome.found != Found::Nothing
            {
                // A route has one look-up at a time: until this one ends there is no other.
                drop(armed.take());
            }
        }
        // Whatever is still armed is let go here: the worker that was ended can leave.
    }

    fn drop_file(&self) -> io::Result<()> {
        let staged = self.staging.join(FILE);
        std::fs::write(&staged, content(FILE, SIZE))?;
        std::fs::rename(staged, self.spool.join(FILE))
    }

    fn check_file(&mut self, outcome: &mut Outcome) {
        let story = self.story.drain();
        let FinalName { torn, published } = watch::final_name(&story, &format!("/in/{FILE}"), SIZE);
        outcome.torn = torn;
        if self.story.lost() > 0 {
            outcome.faults.push("too many events to follow".to_owned());
        }
        if outcome.delivered_after.is_none() {
            return;
        }
        if published != 1 {
            outcome.faults.push(format!("published {published} times"));
        }
        match std::fs::read(self.lab.root().join("in").join(FILE)) {
            Ok(bytes) if bytes == content(FILE, SIZE) => {}
            Ok(_) => outcome.faults.push("the file differs".to_owned()),
            Err(e) => outcome.faults.push(format!("the file cannot be read: {e}")),
        }
    }

    fn judge(&self, outcome: &mut Outcome) {
        let mut faults = Vec::new();
        if outcome.torn {
            faults.push("a torn file was visible".to_owned());
        }
        match (self.row.expected, outcome.found) {
            (Expected::Success, Found::Nothing) => {}
            (Expected::Success, _) => faults.push("a healthy upload was disturbed".to_owned()),
            // Whether the beat or the timer comes first is a matter of the settings.
            (Expected::Deadlock | Expected::Timeout, Found::Deadlock | Found::Timeout) => {
                let named = outcome.cause.as_deref();
                let other = self.row.or_cause.map(|c| c.as_str());
                if named != outcome.expected_cause && (other.is_none() || named != other) {
                    let named = outcome.cause.as_deref().unwrap_or("none");
                    faults.push(format!("the cause named is {named}"));
                }
            }
            (Expected::Error, Found::Error) => {}
            (Expected::Deadlock, Found::Error) if self.row.or_error => {}
            (Expected::Error, Found::Timeout) if self.row.or_timeout => {}
            (expected, found) => faults.push(format!("found as {found:?}, not as {expected}")),
        }
        if outcome
            .found_after
            .is_some_and(|after| after > outcome.bound)
        {
            faults.push(format!("found later than after {:.1} s", outcome.bound));
        }
        outcome.faults.extend(faults);
    }
}

impl Outcome {
    /// Notes the longest silence; a successor that takes long to come up is a fault.
    pub fn was_stuck(&mut self, seconds: f64, limit: Mono) {
        self.stuck = Some(seconds);
        if seconds > limit.as_secs_f64() {
            self.faults
                .push(format!("without a good beat for {seconds:.1} s"));
        }
    }

    /// Only the first finding counts; what follows from it is its consequence.
    fn find(&mut self, found: Found, note: &Note, after: f64) {
        if self.found == Found::Nothing {
            self.found = found;
            self.found_after = Some(after);
            self.cause = Some(note.fact("cause").to_owned()).filter(|c| !c.is_empty());
        }
    }
}
