//! The files of the routes: what is dispatched when, and what a report means for its file.

use std::sync::Arc;

use slog::{info, warn};

use super::route::{Due, FileFacts, RouteState};
use super::slots::{Running, RunningKind};
use super::{DaemonActor, Unsent};
use crate::actors::collector::{Finish, FinishedSource, Forget, Found, SpoolState, Want};
use crate::actors::messages::{Give, Seats};
use crate::clock::{self, Mono};
use crate::core::journey::Stage;
use crate::core::names::{AttemptResult, FileOutcome};
use crate::core::retry::Backoff;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::spool::finish::Finished;
use crate::token;
use crate::worker::{Failure, FailureKind, Job, JobResult, Report, Sweep, Upload, Work};

/// Files of a route that are asked for ahead of their dispatch: enough that no slot ever waits
/// for the collector, few enough that a batch's order stays fresh.
const AHEAD: usize = 1000;
/// Files of a route known at most, those in back-off included.
const KNOWN: usize = 20_000;

impl DaemonActor {
    fn backoff(&self) -> Backoff {
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

    fn forget(&mut self, index: usize, path: &str) {
        self.routes[index].backlog.remove(path);
        let forget = Forget {
            route: self.routes[index].config.name.as_str().into(),
            path: path.into(),
        };
        self.unsent.push_back(Unsent::Forget(forget));
    }

    fn finish(&mut self, index: usize, path: &str, sent: Stamp) {
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

    fn take_back(&mut self, route: usize, path: &str, until: Mono) {
        let target = self.routes[route].target(path);
        self.targets.remove(&target);
        self.routes[route].backlog.put_back(path, until);
    }

    fn sweep_again(&mut self, route: usize, temps: Vec<String>, now: Mono) {
        let due = Due::At(now + self.config.quarantine.hold);
        for temp in temps {
            self.routes[route].sweep_later(temp, due);
        }
    }

    // ---- reports -------------------------------------------------------------------------

    pub(super) fn outcome(&mut self, report: Report, now: Mono) {
        let slot = &mut self.slots[report.slot];
        let route = slot.route;
        let current =
            slot.epoch == report.epoch && slot.job.as_ref().is_some_and(|job| job.id == report.job);
        if !current {
            // A stale epoch changes nothing; the 250 to RNTO that it had read stands in its
            // Attempt, which is what its file's successor asks first.
            return;
        }
        let Some(job) = slot.job.take() else { return };
        match (job.kind, report.result) {
            (RunningKind::Sweep { temps }, JobResult::Failed(failure)) => {
                self.sweep_again(route, temps, now);
                self.destination(route, &failure, now);
            }
            (RunningKind::Sweep { .. }, JobResult::Swept { left }) => {
                self.routes[route].failures = 0;
                self.sweep_again(route, left, now);
            }
            (RunningKind::Sweep { .. }, JobResult::Delivered { .. }) => {}
            (
                RunningKind::Upload { path, .. },
                JobResult::Delivered {
                    source,
                    bytes,
                    took,
                },
            ) => {
                self.delivered(route, &path, source, bytes, took);
            }
            (RunningKind::Upload { path, attempt }, JobResult::Failed(failure)) => {
                self.failed(route, &path, attempt, &failure, now);
            }
            (RunningKind::Upload { path, attempt }, JobResult::Swept { .. }) => {
                self.retry(
                    route,
                    &path,
                    Some(attempt),
                    None,
                    now,
                    "a report of another job",
                );
            }
        }
    }

    fn delivered(
        &mut self,
        route: usize,
        path: &str,
        source: Option<Stamp>,
        bytes: u64,
        took: Mono,
    ) {
        let name = self.routes[route].config.name.clone();
        self.routes[route].failures = 0;
        self.routes[route].delivered += 1;
        self.metrics.files(&name, FileOutcome::Delivered).inc();
        self.metrics.upload_attempts(&name, AttemptResult::Ok).inc();
        self.metrics.upload_bytes(&name).inc_by(bytes);
        self.metrics
            .upload_duration(&name)
            .observe(took.as_secs_f64());
        self.metrics.set_last_success(&name, clock::unix());
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        let sent = source.unwrap_or(facts.stamp);
        facts.delivered = Some(sent);
        facts.failures = 0;
        facts.doubts.clear();
        let incident = facts.incident.take();
        info!(self.log, "file delivered"; "route" => &name, "file" => escape(path).into_owned(),
            "bytes" => sent.size, "seconds" => took.as_secs_f64(), "next" => "its source is finished");
        if let Some(incident) = incident {
            self.recovered(incident);
        }
        self.finish(route, path, sent);
    }

    fn failed(
        &mut self,
        route: usize,
        path: &str,
        attempt: Arc<Attempt>,
        failure: &Failure,
        now: Mono,
    ) {
        let name = self.routes[route].config.name.clone();
        let result = match failure.kind {
            FailureKind::Timeout => AttemptResult::Timeout,
            FailureKind::Ended => AttemptResult::Reset,
            _ => AttemptResult::Error,
        };
        self.metrics.upload_attempts(&name, result).inc();
        if attempt.stage() != Stage::Opened {
            // The server may make this name again, later than anybody looks for it.
            let due = Due::At(now + self.config.quarantine.hold);
            self.routes[route].sweep_later(attempt.temp.clone(), due);
        }
        match failure.kind {
            FailureKind::Changed | FailureKind::Vanished => {
                self.source_gone(route, path, attempt, failure, now);
            }
            _ if !failure.connected => {
                self.destination(route, failure, now);
                self.take_back(route, path, now);
            }
            _ => {
                if failure.kind == FailureKind::Timeout {
                    self.metrics.timeouts(&name, failure.phase).inc();
                }
                self.retry(route, path, Some(attempt), None, now, &failure.error);
            }
        }
    }

    /// The source changed or vanished while it was worked on: whatever was sent is not published.
    fn source_gone(
        &mut self,
        route: usize,
        path: &str,
        attempt: Arc<Attempt>,
        failure: &Failure,
        now: Mono,
    ) {
        let open = |a: &Arc<Attempt>| a.stage() == Stage::Publishing;
        let facts = self.routes[route].backlog.facts(path);
        if open(&attempt) || facts.is_some_and(|f| f.doubts.iter().any(open)) {
            // What an older attempt may have published has to be settled first.
            self.retry(route, path, Some(attempt), None, now, &failure.error);
            return;
        }
        let vanished = failure.kind == FailureKind::Vanished;
        info!(self.log, "the source is not what it was"; "file" => escape(path).into_owned(),
            "route" => &self.routes[route].config.name, "error" => &failure.error,
            "next" => if vanished { "it is dropped; nothing was published" }
                else { "it is sent when it has settled" });
        let target = self.routes[route].target(path);
        self.targets.remove(&target);
        self.forget(route, path);
    }

    /// A file failed: it waits in its back-off, behind the ready ones.
    pub(super) fn retry(
        &mut self,
        route: usize,
        path: &str,
        attempt: Option<Arc<Attempt>>,
        incident: Option<u64>,
        now: Mono,
        error: &str,
    ) {
        let backoff = self.backoff();
        let name = self.routes[route].config.name.clone();
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        facts.failures += 1;
        facts.incident = incident.or(facts.incident);
        facts.doubts.extend(attempt);
        facts.doubts.retain(|a| a.stage() != Stage::Opened);
        let in_doubt = !facts.doubts.is_empty();
        let (failures, pause) = (
            facts.failures,
            backoff.pause(facts.failures, token::random()),
        );
        warn!(self.log, "upload failed"; "route" => name, "file" => escape(path).into_owned(),
            "attempt" => failures, "in_doubt" => in_doubt,
            "error" => escape(error).into_owned(), "next" => format!("retry in {pause:.1?}"));
        self.take_back(route, path, now + pause);
    }

    /// No session came to be: not the file's failure, the destination's.
    fn destination(&mut self, route: usize, failure: &Failure, now: Mono) {
        let backoff = self.backoff();
        let state = &mut self.routes[route];
        let name = state.config.name.clone();
        let key = state.config.server.key();
        if failure.kind == FailureKind::Timeout {
            self.metrics.timeouts(&name, failure.phase).inc();
        }
        state.failures += 1;
        let pause = backoff.pause(state.failures, token::random());
        state.paused = now + pause;
        warn!(self.log, "the destination gives no session"; "route" => name,
            "destination" => &key, "failures" => state.failures,
            "phase" => failure.phase.as_str(), "error" => escape(&failure.error).into_owned(),
            "next" => format!("again in {pause:.1?}; files wait and lose nothing"));
        let no_seat = match failure.code {
            Some(421) => true,
            // 530 before any success is a wrong password; after one, our ghosts may hold the seats.
            Some(530) => state.delivered > 0,
            _ => false,
        };
        // Refused: the next failure says it again.
        if no_seat {
            let _ = self.peers.seats.try_send(Seats { destination: key });
        }
    }
}
