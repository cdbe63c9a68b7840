//! The files of the routes: what comes from the collector, and what is dispatched when.

use std::sync::Arc;

use slog::{info, warn};

use super::route::{Due, FileFacts, RouteState};
use super::slots::{Running, RunningKind};
use super::{DaemonActor, Unsent};
use crate::actors::collector::{Finish, FinishedSource, Forget, Found, SpoolState, Want};
use crate::actors::messages::Give;
use crate::clock::{self, Mono};
use crate::core::retry::Backoff;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::spool::finish::Finished;
use crate::token;
use crate::worker::{Job, Sweep, Upload, Work};

/// Files of a route that are asked for ahead of their dispatch: enough that no slot ever waits
/// for the collector, few enough that a batch's order stays fresh.
const AHEAD: usize = 1000;
/// Files of a route known at most, those in back-off included.
const KNOWN: usize = 20_000;

impl DaemonActor {
    pub(super) fn backoff(&self) -> Backoff {
        let retry = &self.config.retry;
        Backoff {
            first: retry.first,
            max: retry.max,
            jitter: retry.jitter,
        }
    }

    fn route_index(&self, name: &str) -> Option<usize> {
        self.routes.iter().position(|r| r.config.name == name)
    }

    // ---- the collector -------------------------------------------------------------------

    /// Asks for more files once half of those ahead are used up.
    pub(super) fn want(&mut self, index: usize) {
        let route = &mut self.routes[index];
        let room = KNOWN.saturating_sub(route.backlog.len() + route.wanted);
        let ahead = AHEAD.saturating_sub(route.backlog.ready() + route.wanted);
        let n = ahead.min(room);
        if n < AHEAD / 2 || self.draining.is_some() {
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
            let stamp = file.stamp;
            let facts = FileFacts {
                stamp,
                failures: 0,
                doubts: Vec::new(),
                incident: None,
                delivered: None,
            };
            if !route.backlog.add(&file.path, facts)
                && let Some(known) = route.backlog.facts(&file.path)
            {
                known.stamp = stamp;
            }
        }
    }

    pub(super) fn spool_state(&mut self, state: SpoolState) {
        let Some(index) = self.route_index(&state.route) else {
            return;
        };
        let name = &self.routes[index].config.name;
        self.metrics.spool_files(name).set(state.files as i64);
        self.metrics.spool_bytes(name).set(state.bytes as i64);
        self.metrics.set_oldest_pending(name, state.oldest_mtime);
        self.routes[index].problem = state.problem;
        let named = |r: &RouteState| {
            r.problem
                .as_ref()
                .map(|p| format!("route {}: {p}", r.config.name))
        };
        let problems = self.routes.iter().filter_map(named).collect();
        // Nobody may be listening any more.
        self.problems.send_replace(problems);
    }

    pub(super) fn forget(&mut self, index: usize, path: &str) {
        self.routes[index].backlog.remove(path);
        let forget = Forget {
            route: self.routes[index].config.name.as_str().into(),
            path: path.into(),
        };
        self.unsent.push_back(Unsent::Forget(forget));
    }

    pub(super) fn finish(&mut self, index: usize, path: &str, sent: Stamp) {
        self.job += 1;
        self.routes[index].finishing += 1;
        let target = self.routes[index].target(path);
        self.targets.insert(target);
        self.unsent.push_back(Unsent::Finish(Finish {
            route: self.routes[index].config.name.as_str().into(),
            path: path.into(),
            sent,
            token: self.job,
        }));
    }

    pub(super) fn finished(&mut self, done: FinishedSource) {
        let Some(index) = self.route_index(&done.route) else {
            return;
        };
        self.routes[index].finishing = self.routes[index].finishing.saturating_sub(1);
        let target = self.routes[index].target(&done.path);
        self.targets.remove(&target);
        let log = &self.log;
        let (route, file) = (&*done.route, escape(&done.path).into_owned());
        match done.outcome {
            Ok(Finished::Deleted | Finished::Archived(_) | Finished::Kept) => {}
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
                self.routes[index].backlog.put_back(&done.path, now + pause);
                warn!(self.log, "the delivered source cannot be finished";
                    "route" => route, "file" => file, "error" => escape(&error).into_owned(),
                    "next" => format!("again in {pause:.1?}; it is not sent again meanwhile"));
                return;
            }
        }
        self.routes[index].backlog.remove(&done.path);
        self.want(index);
    }

    // ---- dispatch ------------------------------------------------------------------------

    /// Gives work to every free slot.
    pub(super) fn dispatch(&mut self, now: Mono) {
        self.flush();
        if self.draining.is_some() {
            return;
        }
        for index in 0..self.slots.len() {
            if self.slots[index].free() {
                self.give(index, now);
            }
        }
        for route in 0..self.routes.len() {
            self.want(route);
        }
    }

    fn give(&mut self, index: usize, now: Mono) {
        let route = self.slots[index].route;
        let state = &self.routes[route];
        let busy = self
            .slots
            .iter()
            .any(|s| s.route == route && s.job.is_some());
        // A destination that is down is probed by one slot at a time.
        if state.suspended || now < state.paused || (state.failures > 0 && busy) {
            return;
        }
        while let Some(path) = self.take(route, now) {
            let Some(facts) = self.routes[route].backlog.facts(&path) else {
                continue;
            };
            if let Some(sent) = facts.delivered {
                self.finish(route, &path, sent);
                continue;
            }
            let attempt = Arc::new(Attempt::new(token::temp_name(
                &path,
                &self.agent,
                &token::new(),
            )));
            let upload = Upload {
                path: Arc::clone(&path),
                settled: facts.stamp,
                attempt: Arc::clone(&attempt),
                doubts: facts.doubts.clone(),
            };
            let target = self.routes[route].target(&path);
            self.targets.insert(target);
            let kind = RunningKind::Upload {
                path: Arc::clone(&path),
                attempt,
            };
            if !self.hand_over(index, Work::Upload(upload), kind) {
                self.take_back(route, &path, now);
            }
            return;
        }
        let temps = self.routes[route].due_sweeps(now);
        if !temps.is_empty() {
            let work = Work::Sweep(Sweep {
                temps: temps.clone(),
            });
            if !self.hand_over(
                index,
                work,
                RunningKind::Sweep {
                    temps: temps.clone(),
                },
            ) {
                self.sweep_again(route, temps, now);
            }
        }
    }

    fn take(&mut self, route: usize, now: Mono) -> Option<Arc<str>> {
        let (key, folder) = {
            let server = &self.routes[route].config.server;
            (server.key(), server.folder.clone())
        };
        let targets = &self.targets;
        let free = |path: &str| !targets.contains(&(key.clone(), format!("{folder}/{path}")));
        self.routes[route].backlog.take(now, free)
    }

    fn hand_over(&mut self, index: usize, work: Work, kind: RunningKind) -> bool {
        self.job += 1;
        let slot = &mut self.slots[index];
        let job = Job {
            id: self.job,
            epoch: slot.epoch,
            work,
        };
        let given = slot.addr.try_send(Give(job)).is_ok();
        if given {
            slot.job = Some(Running { id: self.job, kind });
        }
        given
    }

    pub(super) fn take_back(&mut self, route: usize, path: &str, until: Mono) {
        let target = self.routes[route].target(path);
        self.targets.remove(&target);
        self.routes[route].backlog.put_back(path, until);
    }

    pub(super) fn sweep_again(&mut self, route: usize, temps: Vec<String>, now: Mono) {
        let due = Due::At(now + self.config.quarantine.hold);
        for temp in temps {
            self.routes[route].sweep_later(temp, due);
        }
    }
}
