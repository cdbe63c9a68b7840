//! Files that fail for too long: how long they have failed (time in which nothing of their route
//! could go does not count), and their way to the dead letters. A file whose earlier attempt may
//! have been published is never given up.

use std::sync::Arc;

use serde::Serialize;
use slog::error;

use super::DaemonActor;
use super::route::FileFacts;
use crate::actors::collector::Revived;
use crate::clock::{self, Mono};
use crate::core::names::FileOutcome;
use crate::log::escape;
use crate::spool::journal::Failing;

/// Since when a file fails, by the route's own clock.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    told: Failing,
    /// The route's time when `told.seconds` was right.
    at: Mono,
}

impl Since {
    /// What an earlier life knows, or nothing yet; `at` is the route's time now.
    pub fn known(told: Failing, at: Mono) -> Self {
        Self { told, at }
    }

    /// What is to be told now.
    pub fn now(self, at: Mono) -> Failing {
        let more = at.saturating_sub(self.at).as_secs_f64();
        Failing {
            seconds: self.told.seconds + more,
            ..self.told
        }
    }
}

/// What a person needs to know of a dead letter. Times are Unix seconds, and the same for people.
#[derive(Serialize)]
struct Story<'a> {
    route: &'a str,
    file: &'a str,
    destination: &'a str,
    remote_folder: &'a str,
    size: u64,
    modified_at: f64,
    modified: String,
    first_failed_at: f64,
    first_failed: String,
    gave_up_at: f64,
    gave_up: String,
    failing_seconds: f64,
    give_up_after_seconds: f64,
    attempts: u32,
    last_error: &'a str,
    next: String,
}

impl DaemonActor {
    /// Time goes on for the routes that can send: what fails meanwhile fails by itself.
    pub(super) fn age_routes(&mut self, now: Mono) {
        let broken = self.record.problem.is_some();
        for route in &mut self.routes {
            let passed = now.saturating_sub(std::mem::replace(&mut route.aged, now));
            let destination = &self.destinations[route.destination];
            let down = destination.seats.failures() > 0 || route.failures > 0;
            if !down && !route.suspended && !broken {
                route.time += passed;
            }
        }
    }

    /// A file has failed: since when it does, in this version.
    pub(super) fn failing(&mut self, route: usize, path: &str) -> Option<Failing> {
        let time = self.routes[route].time;
        let facts = self.routes[route].backlog.facts(path)?;
        let version = facts.stamp;
        let known = facts.failing.filter(|f| f.told.version == version);
        let since = known.unwrap_or_else(|| {
            let told = Failing {
                version,
                first: clock::unix(),
                seconds: 0.0,
            };
            Since::known(told, time)
        });
        facts.failing = Some(since);
        Some(since.now(time))
    }

    pub(super) fn is_too_long(&self, failing: Failing) -> bool {
        failing.seconds >= self.config.retry.give_up_after.as_secs_f64()
    }

    /// Gives a file up that has failed for too long; false if it has to be tried again.
    pub(super) fn give_up(
        &mut self,
        route: usize,
        path: &str,
        failing: Failing,
        error: &str,
    ) -> bool {
        if !self.is_too_long(failing) {
            return false;
        }
        let after = self.config.retry.give_up_after.as_secs_f64();
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return false;
        };
        if facts.delivered.is_some() || !facts.doubts.iter().all(|a| a.may_be_abandoned()) {
            return false;
        }
        self.sweep_parts(route, path);
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return false;
        };
        // From here on no late worker can come to publish it.
        facts.doubts.retain(|attempt| !attempt.abandon());
        if !facts.doubts.is_empty() {
            return false;
        }
        let (attempts, stamp) = (facts.failures, facts.stamp);
        let config = Arc::clone(&self.routes[route].config);
        let (now, modified) = (clock::unix(), stamp.mtime_ns as f64 / 1e9);
        let story = Story {
            route: &config.name,
            file: path,
            destination: &config.server.key(),
            remote_folder: &config.server.folder,
            size: stamp.size,
            modified_at: modified,
            modified: clock::utc(modified),
            first_failed_at: failing.first,
            first_failed: clock::utc(failing.first),
            gave_up_at: now,
            gave_up: clock::utc(now),
            failing_seconds: failing.seconds,
            give_up_after_seconds: after,
            attempts,
            last_error: error,
            next: format!(
                "mend what last_error tells, then `ftpulse retry {} FILE` sends it again",
                config.name
            ),
        };
        let Ok(text) = serde_json::to_string_pretty(&story) else {
            return false;
        };
        self.end_source(route, path, stamp, Some(format!("{text}\n").into()));
        true
    }

    /// Dead letters are in the spool again and begin anew, whatever a life before knew of them.
    pub(super) fn revived(&mut self, revived: &Revived) {
        let Some(route) = self.route_index(&revived.route) else {
            return;
        };
        for path in &revived.files {
            let known = self.routes[route].failed_before.remove(path.as_str());
            if let Some(facts) = self.routes[route].backlog.facts(path) {
                // What is in doubt stays to be settled.
                (facts.failures, facts.failing) = (0, None);
            } else if known.is_some() {
                self.note_forgotten(route, path);
            }
        }
    }

    /// It stands among the dead letters.
    pub(super) fn dead_lettered(&mut self, route: usize, path: &str, place: &std::path::Path) {
        let error = self.routes[route].last_failure.clone();
        let error = error.filter(|(failed, _)| &**failed == path);
        let name = self.routes[route].config.name.clone();
        let attempts = self.routes[route].backlog.facts(path).map(|f| f.failures);
        self.metrics.files(&name, FileOutcome::DeadLetter).inc();
        error!(self.log, "file dead-lettered"; "route" => &name,
            "file" => escape(path).into_owned(), "attempts" => attempts,
            "error" => error.map(|(_, error)| escape(&error).into_owned()),
            "place" => escape(&place.to_string_lossy()).into_owned(),
            "next" => "it stays there with its story beside it until `ftpulse retry` sends it again");
        self.note_forgotten(route, path);
    }
}

/// The facts of a file that nothing is known of but its version.
pub fn fresh(stamp: crate::spool::Stamp) -> FileFacts {
    FileFacts {
        stamp,
        failures: 0,
        seats_lost: 0,
        failing: None,
        doubts: Vec::new(),
        incident: None,
        delivered: None,
    }
}
