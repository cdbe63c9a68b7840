//! The daemon's talk with the collector: credit, files found, sources to be finished or forgotten.

use std::sync::Arc;

use actix::Handler;
use slog::{info, warn};

use super::giving_up::{Since, fresh};
use super::reload::Life;
use super::route::RouteState;
use super::{DaemonActor, Unsent};
use crate::actors::collector::{Finish, FinishedSource, Forget, Found, Revived, SpoolState, Want};
use crate::clock;
use crate::failpoint;
use crate::log::escape;
use crate::spool::Stamp;
use crate::spool::finish::Finished;
use crate::token;

/// Files of a route that are asked for ahead of their dispatch: enough that no slot ever waits
/// for the collector, few enough that a batch's order stays fresh.
pub(super) const AHEAD: usize = 1000;
/// Files of a route known at most, those in back-off included.
pub(super) const KNOWN: usize = 20_000;

impl DaemonActor {
    pub(super) fn route_index(&self, name: &str) -> Option<usize> {
        self.routes
            .iter()
            .position(|r| r.life != Life::Gone && r.config.name == name)
    }

    /// Asks for more files once half of those ahead are used up.
    pub(super) fn want(&mut self, index: usize) {
        let route = &mut self.routes[index];
        let room = KNOWN.saturating_sub(route.backlog.len() + route.wanted);
        let ahead = AHEAD.saturating_sub(route.backlog.ready() + route.wanted);
        let n = ahead.min(room);
        let downloads = route.polls.is_some();
        if n < AHEAD / 2 || self.draining.is_some() || !route.gives() || downloads {
            return;
        }
        let name = route.config.name.as_str().into();
        // Refused: asked again at the next chance, which every Tick is.
        if self.peers.want.try_send(Want { route: name, n }).is_ok() {
            route.wanted += n;
        }
    }

    pub(super) fn found(&mut self, found: Found) {
        let Some(index) = self.route_index(&found.route) else {
            return;
        };
        let route = &mut self.routes[index];
        route.wanted = route.wanted.saturating_sub(found.files.len());
        for file in found.files {
            failpoint::at("file-found");
            self.counters.scan.count();
            let stamp = file.stamp;
            let before = self.routes[index].failed_before.remove(file.path.as_str());
            let incident = before.as_ref();
            let incident = incident.and_then(|_| self.incident_of(&found.route, &file.path));
            let route = &mut self.routes[index];
            let mut facts = fresh(stamp);
            facts.incident = incident;
            let added = match before {
                None => route.backlog.add(&file.path, facts),
                Some(before) => {
                    facts.failures = before.failures;
                    // In another version it begins anew with its next failure.
                    let time = route.time;
                    facts.failing = before.failing.map(|told| Since::known(told, time));
                    route.backlog.add_waiting(&file.path, facts, before.until)
                }
            };
            if !added && let Some(known) = route.backlog.facts(&file.path) {
                known.stamp = stamp;
            }
        }
    }

    pub(super) fn spool_state(&mut self, state: SpoolState) {
        let Some(index) = self.route_index(&state.route) else {
            return;
        };
        let name = &self.routes[index].config.name;
        // What waits for a route that downloads is on the server.
        if self.routes[index].polls.is_none() {
            self.metrics.spool_files(name).set(state.files as i64);
            self.metrics.spool_bytes(name).set(state.bytes as i64);
            self.metrics.set_oldest_pending(name, state.oldest_mtime);
        }
        self.metrics
            .dead_letters(name)
            .set(state.dead_letters as i64);
        self.routes[index].dead_letters = state.dead_letters;
        self.routes[index].settling = state.settling;
        self.routes[index].problem = state.problem;
        self.tell_problems();
    }

    /// Why the service is not ready.
    pub(super) fn tell_problems(&self) {
        let named = |r: &RouteState| {
            r.problem
                .as_ref()
                .or(r.no_resend.as_ref())
                .map(|p| format!("route {}: {p}", r.config.name))
        };
        let journal = self.record.problem.as_ref();
        let journal = journal.map(|why| format!("the journal cannot be written: {why}"));
        let there = |r: &&RouteState| r.life != Life::Gone;
        let routes = self.routes.iter().filter(there).filter_map(named);
        let problems = journal.into_iter().chain(routes).collect();
        // Nobody may be listening any more.
        self.problems.send_replace(problems);
    }

    pub(super) fn forget(&mut self, index: usize, path: &str) {
        self.routes[index].backlog.remove(path);
        self.note_forgotten(index, path);
        let forget = Forget {
            route: self.routes[index].config.name.as_str().into(),
            path: path.into(),
        };
        self.unsent.push_back(Unsent::Forget(forget));
    }

    pub(super) fn finish(&mut self, index: usize, path: &str, sent: Stamp) {
        self.end_source(index, path, sent, None);
    }

    /// A delivered source is finished, or (with its story) one that is given up.
    pub(super) fn end_source(
        &mut self,
        index: usize,
        path: &str,
        sent: Stamp,
        story: Option<Arc<str>>,
    ) {
        self.job += 1;
        self.routes[index].finishing += 1;
        let target = self.routes[index].target(path);
        self.targets.insert(target, index);
        self.unsent.push_back(Unsent::Finish(Finish {
            route: self.routes[index].config.name.as_str().into(),
            path: path.into(),
            sent,
            story,
            token: self.job,
        }));
    }

    pub(super) fn finished(&mut self, done: FinishedSource) {
        let Some(index) = self.route_index(&done.route) else {
            return;
        };
        failpoint::at("source-finished");
        self.routes[index].finishing = self.routes[index].finishing.saturating_sub(1);
        let target = self.routes[index].target(&done.path);
        self.targets.remove(&target);
        let facts = self.routes[index].backlog.facts(&done.path);
        let was_delivered = facts.is_some_and(|facts| facts.delivered.is_some());
        if let Ok(Finished::Buried(place)) = &done.outcome {
            self.dead_lettered(index, &done.path, place);
        }
        let log = &self.log;
        let (route, file) = (&*done.route, escape(&done.path).into_owned());
        match &done.outcome {
            Ok(Finished::Kept) => {
                let facts = self.routes[index].backlog.facts(&done.path);
                let kept = facts.and_then(|facts| facts.delivered);
                self.note_finished(index, &done.path, kept);
            }
            Ok(Finished::Changed | Finished::SetAside(_)) => self.note_forgotten(index, &done.path),
            Ok(Finished::Buried(_)) => {}
            Ok(_) => self.note_finished(index, &done.path, None),
            Err(_) => {}
        }
        match done.outcome {
            Ok(
                Finished::Deleted | Finished::Archived(_) | Finished::Kept | Finished::Buried(_),
            ) => {}
            Ok(Finished::Vanished) if !was_delivered => info!(log, "the source is gone";
                "route" => route, "file" => file, "next" => "it is dropped; it was never delivered"),
            Ok(Finished::Changed) if !was_delivered => info!(log, "the source is not what it was";
                "route" => route, "file" => file, "next" => "it is sent when it has settled"),
            Ok(Finished::Vanished) => info!(log, "the delivered source is gone already";
                "route" => route, "file" => file, "next" => "nothing is left to do"),
            Ok(Finished::Changed) => info!(log, "the source changed after it was sent";
                "route" => route, "file" => file, "next" => "it is sent again when it has settled"),
            Ok(Finished::SetAside(place)) => warn!(log, "a changed source lost its place";
                "route" => route, "file" => file,
                "set_aside" => escape(&place.to_string_lossy()).into_owned(),
                "next" => "the newer file is sent; look at the one that was set aside"),
            Err(error) => {
                let now = clock::mono();
                let Some(facts) = self.routes[index].backlog.facts(&done.path) else {
                    return;
                };
                facts.failures += 1;
                let failures = facts.failures;
                let pause = self.backoff().pause(failures, token::random());
                let state = &mut self.routes[index];
                state.backlog.put_back(&done.path, now + pause);
                if was_delivered {
                    let why = format!("it is delivered, but: {error}");
                    state.last_failure = Some((done.path.as_str().into(), why));
                    warn!(self.log, "the delivered source cannot be finished";
                        "route" => route, "file" => file, "error" => escape(&error).into_owned(),
                        "next" => format!("again in {pause:.1?}; it is not sent again meanwhile"));
                } else {
                    warn!(self.log, "a file cannot be put among the dead letters";
                        "route" => route, "file" => file, "error" => escape(&error).into_owned(),
                        "next" => format!("it is tried again in {pause:.1?}"));
                    let target = self.routes[index].target(&done.path);
                    self.targets.remove(&target);
                }
                return;
            }
        }
        self.routes[index].backlog.remove(&done.path);
        self.want(index);
    }
}

impl Handler<Found> for DaemonActor {
    type Result = ();

    fn handle(&mut self, found: Found, _: &mut Self::Context) {
        self.found(found);
        self.dispatch(clock::mono());
    }
}

impl Handler<SpoolState> for DaemonActor {
    type Result = ();

    fn handle(&mut self, state: SpoolState, _: &mut Self::Context) {
        self.spool_state(state);
    }
}

impl Handler<Revived> for DaemonActor {
    type Result = ();

    fn handle(&mut self, revived: Revived, _: &mut Self::Context) {
        self.revived(&revived);
    }
}

impl Handler<FinishedSource> for DaemonActor {
    type Result = ();

    fn handle(&mut self, finished: FinishedSource, _: &mut Self::Context) {
        self.finished(finished);
        let now = clock::mono();
        self.dispatch(now);
        self.drain(now);
    }
}
