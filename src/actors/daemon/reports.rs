//! What a worker's report means for its file and its destination (S1.6): delivered, tried again
//! under its back-off, dropped with a line; and how long a destination is left alone.

use std::sync::Arc;

use slog::{info, warn};

use super::DaemonActor;
use super::route::Due;
use super::slots::RunningKind;
use crate::actors::messages::Seats;
use crate::clock::{self, Mono};
use crate::core::journey::Stage;
use crate::core::names::{AttemptResult, FileOutcome};
use crate::core::retry::Backoff;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::token;
use crate::worker::{Failure, FailureKind, JobResult, Report};

impl DaemonActor {
    pub(super) fn backoff(&self) -> Backoff {
        let retry = &self.config.retry;
        Backoff {
            first: retry.first,
            max: retry.max,
            jitter: retry.jitter,
        }
    }

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
            self.routes[route].sweep_later(attempt.temp.clone(), Some(path.into()), due);
        }
        // A source that cannot be read says nothing of the destination.
        if failure.connected && failure.kind != FailureKind::Source {
            self.routes[route].failures = 0;
            self.ask_for_seat(route, failure);
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
        self.ask_for_seat(route, failure);
    }

    /// Our own ghosts in the quarantine may hold the seats that the server says are taken.
    fn ask_for_seat(&self, route: usize, failure: &Failure) {
        let state = &self.routes[route];
        let no_seat = match failure.code {
            Some(421) => true,
            // 530 before any success is a wrong password.
            Some(530) => state.delivered > 0,
            _ => false,
        };
        if no_seat {
            // No room for it: the next failure says it again.
            let _ = self.peers.seats.try_send(Seats {
                destination: state.config.server.key(),
            });
        }
    }
}
