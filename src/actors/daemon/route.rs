//! One route as the daemon knows it: its files, its destination's state, the old temp names that
//! have to be swept. It decides what is due; it sends nothing.

use std::collections::HashMap;
use std::sync::Arc;

use slog::{Logger, error, info};

use super::destination::Destination;
use super::giving_up::Since;
use super::looks::Looks;
use super::polls::Polls;
use super::reload::{self, Life};
use crate::clock::{self, Mono};
use crate::config::{After, Config, Route};
use crate::core::backlog::{Backlog, Place};
use crate::core::journey::Stage;
use crate::ftp::Limit;
use crate::log::escape;
use crate::pulse::{Attempt, Folder, LookUps};
use crate::report::RouteStatus;
use crate::spool::Stamp;
use crate::spool::journal::Failing;
use crate::worker::Terms;

/// Old temp names taken away in one job.
const SWEEP_BATCH: usize = 20;
/// Old temp names remembered; beyond that the oldest are left to the server.
const SWEEPS: usize = 10_000;

/// What the daemon knows of a file.
pub struct FileFacts {
    pub stamp: Stamp,
    pub failures: u32,
    /// Seats at the destination lost in a row; not the file's failures.
    pub seats_lost: u32,
    /// Since when it fails.
    pub failing: Option<Since>,
    /// Attempts without a clear result, oldest first.
    pub doubts: Vec<Arc<Attempt>>,
    /// The deadlock from which the file has to recover.
    pub incident: Option<u64>,
    /// It was delivered in this version; only its source is not finished yet.
    pub delivered: Option<Stamp>,
}

/// What an earlier life knew of a file that only failed.
pub struct FailedBefore {
    pub failures: u32,
    pub failing: Option<Failing>,
    pub until: Mono,
}

/// When an old temp name is swept once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Then.
    At(Mono),
    /// When the pair of this incident is released.
    Release(u64),
}

/// A temp name of an attempt without a clear result.
struct OldTemp {
    name: String,
    /// The file whose attempt it was; none once it is known to be in doubt no more. While it is,
    /// the temp may be the only whole copy, and its absence would be taken for a publication.
    path: Option<Arc<str>>,
    due: Due,
}

/// Where a route's files go, and its attempts' temp names are; for one that downloads, from where
/// to where.
pub fn folder(route: &Route) -> Folder {
    let place = format!("{}/{}", route.server.key(), route.server.folder);
    match route.get {
        None => Folder::at(&place),
        Some(_) => Folder::at(&format!("{place} {}", route.spool.display())),
    }
}

/// One route.
pub struct RouteState {
    pub config: Arc<Route>,
    /// What the configuration says of it now; none: that it is to go.
    pub desired: Option<Arc<Route>>,
    pub life: Life,
    /// Answers of its spool's thread to new settings that are still to come: until then nothing
    /// is begun.
    pub renewing: u32,
    /// Its slots may not be those that it is to have.
    pub refit: bool,
    /// Where its files go.
    pub folder: Folder,
    /// The settings of its jobs.
    pub terms: Arc<Terms>,
    /// Its destination's place among the daemon's.
    pub destination: usize,
    pub look_ups: LookUps,
    /// Its rate limit, shared by its uploaders.
    pub limit: Limit,
    pub backlog: Backlog<FileFacts>,
    /// Files asked for and not yet come.
    pub wanted: usize,
    /// Sources that the collector is finishing.
    pub finishing: usize,
    /// How often in a row its remote folder could not be entered.
    pub failures: u32,
    pub paused: Mono,
    /// Why.
    pub no_session: String,
    /// The file that failed last, with its error.
    pub last_failure: Option<(Arc<str>, String)>,
    pub suspended: bool,
    /// Since when it has files and no session.
    pub hungry: Option<Mono>,
    /// Why nothing of it may be sent before a person wants it.
    pub no_resend: Option<String>,
    sweeps: Vec<OldTemp>,
    pub looks: Looks,
    /// The listings of a route that downloads.
    pub polls: Option<Polls>,
    /// Files that failed in an earlier life and have not come again. Bounded by what one life can
    /// know.
    pub failed_before: HashMap<Arc<str>, FailedBefore>,
    /// How long this route could send: the clock of its failing files.
    pub time: Mono,
    /// When that was counted last.
    pub aged: Mono,
    pub delivered: u64,
    /// Bytes that crossed the network for them.
    pub delivered_bytes: u64,
    pub dead_letters: u64,
    pub problem: Option<String>,
    /// Files in the spool that are not settled yet.
    pub settling: u64,
}

impl RouteState {
    pub fn new(config: Arc<Route>, look_ups: LookUps, of: &Config) -> Self {
        Self {
            limit: Limit::new(config.rate_limit),
            desired: Some(Arc::clone(&config)),
            life: Life::Live,
            renewing: 0,
            refit: false,
            folder: folder(&config),
            polls: config.get.is_some().then(Polls::default),
            terms: reload::terms(of, &config),
            config,
            destination: 0,
            look_ups,
            backlog: Backlog::default(),
            wanted: 0,
            finishing: 0,
            failures: 0,
            paused: Mono::ZERO,
            no_session: String::new(),
            last_failure: None,
            suspended: false,
            hungry: None,
            no_resend: None,
            sweeps: Vec::new(),
            looks: Looks::new(),
            failed_before: HashMap::new(),
            time: Mono::ZERO,
            aged: clock::mono(),
            delivered: 0,
            delivered_bytes: 0,
            dead_letters: 0,
            problem: None,
            settling: 0,
        }
    }

    /// The same route before it begins (again), as the configuration says.
    pub fn anew(&self, of: &Config) -> Self {
        let mut fresh = Self::new(Arc::clone(&self.config), self.look_ups.clone(), of);
        fresh.life = Life::Gone;
        fresh.desired.clone_from(&self.desired);
        (fresh.delivered, fresh.suspended) = (self.delivered, self.suspended);
        fresh.delivered_bytes = self.delivered_bytes;
        fresh.no_resend.clone_from(&self.no_resend);
        fresh
    }

    /// What a person should know of this route now.
    pub fn status(&self, destination: &Destination, now: Mono) -> RouteStatus {
        let again = self.paused.saturating_sub(now).as_secs_f64();
        let failures = self.failures;
        let no_session = (failures > 0).then(|| {
            let why = escape(&self.no_session);
            format!("no session after {failures} tries: {why}; next try in {again:.1} s")
        });
        let unlisted = || self.polls.as_ref().and_then(|polls| polls.problem(now));
        let waits = |path: &str| matches!(self.backlog.place(path), Some(Place::Waiting(_)));
        let failed = self.last_failure.as_ref().filter(|(path, _)| waits(path));

        RouteStatus {
            name: self.config.name.clone(),
            destination: destination.key.clone(),
            direction: if self.polls.is_some() { "get" } else { "put" }.into(),
            waiting: self.backlog.ready(),
            backing_off: self.backlog.waiting(),
            settling: self.polls.as_ref().map_or(self.settling, Polls::settling),
            delivered: self.delivered,
            delivered_bytes: self.delivered_bytes,
            dead_letters: self.dead_letters,
            suspended: self
                .idles()
                .map(str::to_owned)
                .or_else(|| self.no_resend.clone()),
            spool_problem: self.problem.clone(),
            destination_problem: destination.problem(now).or(no_session).or_else(unlisted),
            last_failure: failed
                .map(|(path, error)| format!("{}: {}", escape(path), escape(error))),
            slots: Vec::new(),
        }
    }

    /// Whether its remote folder is to be listed now, where it downloads.
    pub fn poll_due(&self, now: Mono) -> bool {
        self.polls.as_ref().is_some_and(|polls| polls.due(now))
    }

    /// Whether it has something to do that needs a session.
    pub fn is_due(&self, now: Mono) -> bool {
        self.backlog.due(now) > 0 || self.poll_due(now)
    }

    /// Whether something of it may be begun.
    pub fn gives(&self) -> bool {
        self.life == Life::Live && self.renewing == 0
    }

    /// Why nothing of it is begun, for people.
    fn idles(&self) -> Option<&'static str> {
        match (self.life, &self.desired) {
            (Life::Ending | Life::Shutting { .. }, None) => {
                Some("it was removed from the configuration: what runs of it is finished")
            }
            (Life::Ending | Life::Shutting { .. }, Some(_)) => {
                Some("its settings were changed: it begins anew when what runs is finished")
            }
            (Life::Waits, _) => Some("another route has not let its spool go yet"),
            _ => self.suspended.then_some("two of its workers cannot end"),
        }
    }

    /// A route that keeps its files must not send them all again. What holds a route back is not
    /// taken away by other settings: only a start with --accept-resend does that.
    pub fn keep_from_sending(&mut self, why: Option<&String>) {
        if matches!(self.config.after, After::Keep) && self.no_resend.is_none() {
            self.no_resend = why.cloned();
        }
    }

    /// Suspends or resumes the route; says so once.
    pub fn suspend(&mut self, suspended: bool, log: &Logger) {
        if self.suspended == suspended {
            return;
        }
        self.suspended = suspended;
        if suspended {
            error!(log, "route suspended: two of its workers cannot end";
                "route" => &self.config.name,
                "next" => "no file of it is sent until one of them ends or the service restarts");
        } else {
            info!(log, "route resumed"; "route" => &self.config.name,
                "next" => "its files are sent again");
        }
    }

    /// Sweeps the temp name of an attempt of `path` when it is due and in doubt no more; answers
    /// the one that is given up for it.
    pub fn sweep_later(
        &mut self,
        name: String,
        path: Option<Arc<str>>,
        due: Due,
    ) -> Option<String> {
        let full = self.sweeps.len() >= SWEEPS;
        let left = full.then(|| self.sweeps.remove(0).name);
        self.sweeps.push(OldTemp { name, path, due });
        left
    }

    /// The temp names that are to be swept.
    pub fn sweeps(&self) -> impl Iterator<Item = &str> {
        self.sweeps.iter().map(|temp| temp.name.as_str())
    }

    /// A file is done with: parts of it that were to be resumed, or were left by an earlier life,
    /// and are not to be swept yet.
    pub fn parts(&mut self, path: &str) -> Vec<String> {
        let facts = self.backlog.facts(path);
        let doubts = facts.map(|facts| facts.doubts.as_slice());
        let parts = doubts.unwrap_or_default().iter();
        let parts = parts.filter(|a| a.stage() == Stage::Sending);
        let unswept = |name: &String| self.sweeps.iter().all(|temp| temp.name != *name);
        parts.map(|a| a.temp.clone()).filter(unswept).collect()
    }

    /// The pair of this incident was released: its temp names are due at `at`.
    pub fn release_sweeps(&mut self, incident: u64, at: Mono) {
        for temp in &mut self.sweeps {
            if temp.due == Due::Release(incident) {
                temp.due = Due::At(at);
            }
        }
    }

    /// Takes out the names that are to be swept now.
    pub fn due_sweeps(&mut self, now: Mono) -> Vec<String> {
        let mut out = Vec::new();
        let Self {
            sweeps, backlog, ..
        } = self;
        let mut in_doubt = |temp: &OldTemp| {
            let facts = temp.path.as_ref().and_then(|path| backlog.facts(path));
            facts.is_some_and(|facts| facts.doubts.iter().any(|a| a.temp == temp.name))
        };
        sweeps.retain(|temp| {
            let due = matches!(temp.due, Due::At(at) if at <= now);
            let take = out.len() < SWEEP_BATCH && due && !in_doubt(temp);
            if take {
                out.push(temp.name.clone());
            }
            !take
        });
        out
    }

    /// Whether what became of an attempt of this file is not known yet.
    pub fn in_doubt(&mut self, path: &str) -> bool {
        self.backlog
            .facts(path)
            .is_some_and(|facts| !facts.doubts.is_empty())
    }

    pub fn target(&self, path: &str) -> (String, String) {
        (
            self.config.server.key(),
            format!("{}/{path}", self.config.server.folder),
        )
    }
}
