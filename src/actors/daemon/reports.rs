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
use crate::core::names::{AttemptResult, Cause, FileOutcome, Phase};
use crate::core::retry::Backoff;
use crate::core::stall;
use crate::failpoint;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::token;
use crate::worker::{Failure, FailureKind, JobResult, Report};

/// What is known of a failed attempt.
pub(super) struct Failed<'a> {
    pub attempt: Option<Arc<Attempt>>,
    /// The deadlock that it was.
    pub incident: Option<u64>,
    /// Why it was over its bound, if it was.
    pub cause: Option<Cause>,
    /// Bytes of it handed to the kernel.
    pub sent: u64,
    pub error: &'a str,
}

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
        let sent = slot.handle.as_ref().map_or(0, |h| h.bytes());
        let overdue = slot.overdue.take();
        let cause = |failure: &Failure| timeout_cause(failure, overdue);
        match (job.kind, report.result) {
            (RunningKind::Sweep { temps }, JobResult::Failed(failure)) => {
                self.sweep_again(route, temps, now);
                self.destination(route, &failure, cause(&failure), now);
            }
            (RunningKind::Sweep { .. }, JobResult::Swept { left }) => {
                self.routes[route].failures = 0;
                self.sweep_again(route, left, now);
            }
            (
                RunningKind::Sweep { .. },
                JobResult::Delivered { .. } | JobResult::Skipped { .. },
            ) => {}
            (
                RunningKind::Upload { path, .. },
                JobResult::Delivered {
                    source,
                    bytes,
                    took,
                    name,
                },
            ) => {
                let name = (name != *path).then_some(name);
                self.delivered(route, &path, source, bytes, took, name);
            }
            (RunningKind::Upload { path, attempt }, JobResult::Skipped { source }) => {
                self.skipped(route, &path, &attempt, source, now);
            }
            (RunningKind::Upload { path, attempt }, JobResult::Failed(failure)) => {
                let failed = Failed {
                    attempt: Some(attempt),
                    incident: None,
                    cause: cause(&failure),
                    sent,
                    error: &failure.error,
                };
                self.failed(route, &path, failed, &failure, now);
            }
            (RunningKind::Upload { path, attempt }, JobResult::Swept { .. }) => {
                let failed = Failed {
                    attempt: Some(attempt),
                    incident: None,
                    cause: None,
                    sent,
                    error: "a report of another job",
                };
                self.retry(route, &path, failed, now);
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
        stands_as: Option<String>,
    ) {
        failpoint::at("delivery-reported");
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
            "stands_as" => stands_as.as_deref().map(|n| escape(n).into_owned()),
            "bytes" => sent.size, "bytes_sent" => bytes, "seconds" => took.as_secs_f64(), "next" => "its source is finished");
        if let Some(incident) = incident {
            self.recovered(incident);
        }
        self.record_delivery(route, path, sent, stands_as);
    }

    /// Its name exists on the server, and the route skips such files: its source is finished.
    fn skipped(
        &mut self,
        route: usize,
        path: &str,
        attempt: &Attempt,
        source: Option<Stamp>,
        now: Mono,
    ) {
        let name = self.routes[route].config.name.clone();
        self.routes[route].failures = 0;
        self.metrics.files(&name, FileOutcome::Skipped).inc();
        if attempt.may_leave_temp() {
            // Its temp could not be taken away.
            let due = Due::At(now + self.config.quarantine.hold);
            self.routes[route].sweep_later(attempt.temp.clone(), None, due);
        }
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        let stamp = source.unwrap_or(facts.stamp);
        facts.delivered = Some(stamp);
        facts.failures = 0;
        facts.doubts.clear();
        let incident = facts.incident.take();
        info!(self.log, "file skipped"; "route" => &name, "file" => escape(path).into_owned(),
            "error" => "its final name exists on the server (on_conflict = \"skip\")",
            "bytes" => stamp.size, "next" => "its source is finished");
        if let Some(incident) = incident {
            self.recovered(incident);
        }
        self.record_delivery(route, path, stamp, None);
    }

    fn failed(
        &mut self,
        route: usize,
        path: &str,
        failed: Failed<'_>,
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
        let begun = failed.attempt.as_ref();
        if let Some(attempt) = begun.filter(|a| a.may_leave_temp()) {
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
            FailureKind::Journal => {
                self.unwritable("a worker could not write it".into());
                self.retry(route, path, failed, now);
            }
            FailureKind::Changed | FailureKind::Vanished => {
                self.source_gone(route, path, failed, failure, now);
            }
            _ if !failure.connected => {
                self.destination(route, failure, failed.cause, now);
                self.take_back(route, path, now);
            }
            _ => {
                if failure.kind == FailureKind::Timeout {
                    self.metrics.timeouts(&name, failure.phase).inc();
                }
                self.retry(route, path, failed, now);
            }
        }
    }

    /// The source changed or vanished while it was worked on: whatever was sent is not published.
    fn source_gone(
        &mut self,
        route: usize,
        path: &str,
        failed: Failed<'_>,
        failure: &Failure,
        now: Mono,
    ) {
        let open = |a: &Arc<Attempt>| a.stage() == Stage::Publishing || a.is_torn();
        let facts = self.routes[route].backlog.facts(path);
        if failed.attempt.as_ref().is_some_and(open)
            || facts.is_some_and(|f| f.doubts.iter().any(open))
        {
            // What an attempt may have published, or left to be seen, has to be settled first.
            self.retry(route, path, failed, now);
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
    pub(super) fn retry(&mut self, route: usize, path: &str, failed: Failed<'_>, now: Mono) {
        let backoff = self.backoff();
        let name = self.routes[route].config.name.clone();
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        facts.failures += 1;
        facts.incident = failed.incident.or(facts.incident);
        facts.doubts.extend(failed.attempt);
        facts.doubts.retain(|a| a.stage() != Stage::Opened);
        let in_doubt = !facts.doubts.is_empty();
        let torn = facts.doubts.iter().any(|a| a.is_torn());
        let failures = facts.failures;
        // A torn file under its final name is sent again at once, but not in a circle.
        let pause = if torn && failures == 1 {
            Mono::ZERO
        } else {
            backoff.pause(failures, token::random())
        };
        warn!(self.log, "upload failed"; "route" => name, "file" => escape(path).into_owned(),
            "attempt" => failures, "in_doubt" => in_doubt, "bytes_sent" => failed.sent,
            "cause" => failed.cause.map(Cause::as_str),
            "error" => escape(failed.error).into_owned(), "next" => format!("retry in {pause:.1?}"));
        self.note_waiting(route, path, failures, pause, failed.error);
        self.routes[route].last_failure = Some((path.into(), failed.error.to_owned()));
        self.take_back(route, path, now + pause);
    }

    /// No session came to be: not the file's failure, the destination's.
    fn destination(&mut self, route: usize, failure: &Failure, cause: Option<Cause>, now: Mono) {
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
        state.no_session.clone_from(&failure.error);
        warn!(self.log, "the destination gives no session"; "route" => name,
            "destination" => &key, "failures" => state.failures,
            "phase" => failure.phase.as_str(), "cause" => cause.map(Cause::as_str),
            "error" => escape(&failure.error).into_owned(),
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

/// Why a wait was over its bound: what the evidence said when the daemon interrupted it, or what
/// the phase alone tells where the worker was the first to see it.
fn timeout_cause(failure: &Failure, overdue: Option<(Phase, Cause)>) -> Option<Cause> {
    let seen = overdue.filter(|(phase, _)| *phase == failure.phase);
    let cause = || seen.map_or(stall::of_phase(failure.phase), |(_, cause)| cause);
    (failure.kind == FailureKind::Timeout).then(cause)
}
