//! What a worker's report means for its file and its destination (S1.6): delivered, tried again
//! under its back-off, dropped with a line; and how long a destination is left alone.

use std::sync::Arc;

use slog::{info, warn};

use super::DaemonActor;
use super::route::Due;
use super::slots::RunningKind;
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
    /// In which phase, unless a verdict has told that.
    pub phase: Option<Phase>,
    /// Why it was over its bound, if it was.
    pub cause: Option<Cause>,
    /// The destination took the session away (421): not the file's failure.
    pub seat_lost: bool,
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
        // What one report means depends on who has a session by now.
        self.see_sessions(now);
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
        if session_stood(&report.result) || slot.has_session() {
            self.session_came(report.slot, now);
            self.routes[route].failures = 0;
        }
        let cause = |failure: &Failure| timeout_cause(failure, overdue);
        match (job.kind, report.result) {
            (RunningKind::Sweep { temps }, JobResult::Failed(failure)) => {
                self.sweep_again(route, temps, now);
                if !failure.connected {
                    self.count_timeout(route, &failure);
                    self.no_session(report.slot, &failure, cause(&failure), now);
                }
            }
            (RunningKind::Sweep { temps }, JobResult::Swept { left }) => {
                self.swept(route, &temps, left, now);
            }
            (RunningKind::Look { clock }, JobResult::Looked(seen)) => {
                self.looked(route, clock, seen, now);
            }
            (RunningKind::Look { clock }, JobResult::Failed(failure)) => {
                self.look_failed(route, clock, Due::At(now + self.config.quarantine.hold));
                if !failure.connected {
                    self.count_timeout(route, &failure);
                    self.no_session(report.slot, &failure, cause(&failure), now);
                }
            }
            (RunningKind::Poll, JobResult::Polled(polled)) => self.polled(route, *polled, now),
            (RunningKind::Poll, JobResult::Failed(failure)) => {
                let cause = cause(&failure);
                self.poll_failed(report.slot, &failure, cause, now);
            }
            (RunningKind::Poll, _) => self.poll_again(route, "a report of another job", None, now),
            (RunningKind::Sweep { .. } | RunningKind::Look { .. } | RunningKind::Part, _) => {}
            (RunningKind::File { path, .. }, JobResult::Got(got)) => {
                self.got(report.slot, &path, *got, now);
            }
            (
                RunningKind::File { path, .. },
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
            (RunningKind::File { path, attempt }, JobResult::Skipped { source }) => {
                self.skipped(route, &path, &attempt, source, now);
            }
            (RunningKind::File { path, attempt }, JobResult::Failed(failure)) => {
                let failed = Failed {
                    attempt: Some(attempt),
                    incident: None,
                    phase: Some(failure.phase),
                    cause: cause(&failure),
                    seat_lost: failure.connected && failure.code == Some(421),
                    sent,
                    error: &failure.error,
                };
                if self.routes[route].polls.is_some() {
                    self.download_failed(report.slot, &path, failed, &failure, now);
                } else {
                    self.failed(report.slot, &path, failed, &failure, now);
                }
            }
            (
                RunningKind::File { path, attempt },
                JobResult::Swept { .. }
                | JobResult::Looked(_)
                | JobResult::Polled(_)
                | JobResult::Answered(_)
                | JobResult::Parted,
            ) => {
                let failed = Failed {
                    attempt: Some(attempt),
                    incident: None,
                    phase: None,
                    cause: None,
                    seat_lost: false,
                    sent,
                    error: "a report of another job",
                };
                self.retry(route, &path, failed, now);
            }
        }
    }

    /// A file is done with: what is left of it on the server is taken away.
    pub(super) fn sweep_parts(&mut self, route: usize, path: &str) {
        let due = Due::At(clock::mono() + self.config.quarantine.hold);
        for temp in self.routes[route].parts(path) {
            self.sweep_later(route, temp, None, due);
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
        self.routes[route].delivered += 1;
        self.routes[route].delivered_bytes += bytes;
        self.routes[route].looks.uploaded(path);
        self.metrics.files(&name, FileOutcome::Delivered).inc();
        self.metrics.upload_attempts(&name, AttemptResult::Ok).inc();
        self.metrics.upload_bytes(&name).inc_by(bytes);
        self.metrics
            .upload_duration(&name)
            .observe(took.as_secs_f64());
        self.metrics.set_last_success(&name, clock::unix());
        self.sweep_parts(route, path);
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        let sent = source.unwrap_or(facts.stamp);
        facts.delivered = Some(sent);
        facts.failures = 0;
        facts.seats_lost = 0;
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
        self.metrics.files(&name, FileOutcome::Skipped).inc();
        if attempt.may_leave_temp() {
            // Its temp could not be taken away.
            let due = Due::At(now + self.config.quarantine.hold);
            self.sweep_later(route, attempt.temp.clone(), None, due);
        }
        self.sweep_parts(route, path);
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        let stamp = source.unwrap_or(facts.stamp);
        facts.delivered = Some(stamp);
        facts.failures = 0;
        facts.seats_lost = 0;
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

    /// What every failed transfer means beside its file; answers its route.
    pub(super) fn count_failure(
        &mut self,
        slot: usize,
        failed: &Failed<'_>,
        failure: &Failure,
        now: Mono,
    ) -> usize {
        let route = self.slots[slot].route;
        let name = &self.routes[route].config.name;
        self.metrics
            .upload_attempts(name, failure.kind.result())
            .inc();
        self.count_timeout(route, failure);
        if failed.seat_lost {
            self.seat_lost(route, now);
            self.ask_for_seat(self.routes[route].destination, failure);
        }
        route
    }

    fn failed(
        &mut self,
        slot: usize,
        path: &str,
        failed: Failed<'_>,
        failure: &Failure,
        now: Mono,
    ) {
        let route = self.count_failure(slot, &failed, failure, now);
        let begun = failed.attempt.as_ref();
        if let Some(attempt) = begun.filter(|a| a.may_leave_temp()) {
            // The server may make this name again, later than anybody looks for it.
            let due = Due::At(now + self.config.quarantine.hold);
            self.sweep_later(route, attempt.temp.clone(), Some(path.into()), due);
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
                self.no_session(slot, failure, failed.cause, now);
                self.take_back(route, path, now);
            }
            _ => self.retry(route, path, failed, now),
        }
    }

    pub(super) fn count_timeout(&self, route: usize, failure: &Failure) {
        if failure.kind == FailureKind::Timeout {
            let name = &self.routes[route].config.name;
            self.metrics.timeouts(name, failure.phase).inc();
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
        let count = if failed.seat_lost {
            &mut facts.seats_lost
        } else {
            &mut facts.failures
        };
        *count += 1;
        let pause = backoff.pause(*count, token::random());
        facts.incident = failed.incident.or(facts.incident);
        facts.doubts.extend(failed.attempt);
        facts.doubts.retain(|a| a.stage() != Stage::Opened);
        let in_doubt = !facts.doubts.is_empty();
        // A torn file under its final name is sent again at once, but not in a circle.
        let torn = facts.doubts.iter().any(|a| a.is_torn());
        let pause = if torn && facts.failures + facts.seats_lost == 1 {
            Mono::ZERO
        } else {
            pause
        };
        let failures = facts.failures;
        let failing = self.failing(route, path).filter(|_| !failed.seat_lost);
        // There is nothing to put aside of what was not downloaded: it is tried for ever.
        let downloads = self.routes[route].polls.is_some();
        let over = !downloads && failing.is_some_and(|f| self.is_too_long(f));
        let what = if downloads { "download" } else { "upload" };
        warn!(self.log, "{} failed", what; "route" => name, "file" => escape(path).into_owned(),
        "attempt" => failures, "in_doubt" => in_doubt, "bytes_sent" => failed.sent,
        "phase" => failed.phase.map(Phase::as_str), "cause" => failed.cause.map(Cause::as_str),
        "error" => escape(failed.error).into_owned(), "next" => if over {
            "it has failed for too long: it is given up, unless an attempt is in doubt".into()
        } else {
            format!("retry in {pause:.1?}")
        });
        self.routes[route].last_failure = Some((path.into(), failed.error.to_owned()));
        if let Some(failing) = failing {
            self.note_waiting(route, path, (failures, failing), pause, failed.error);
            if over && self.give_up(route, path, failing, failed.error) {
                return;
            }
        }
        self.take_back(route, path, now + pause);
    }
}

/// Why a wait was over its bound: what the evidence said when the daemon interrupted it, or what
/// the phase alone tells where the worker was the first to see it.
fn timeout_cause(failure: &Failure, overdue: Option<(Phase, Cause)>) -> Option<Cause> {
    let seen = overdue.filter(|(phase, _)| *phase == failure.phase);
    let cause = || seen.map_or(stall::of_phase(failure.phase), |(_, cause)| cause);
    (failure.kind == FailureKind::Timeout).then(cause)
}

/// Whether a job that ended so had a session. A source that cannot be read says nothing of it.
fn session_stood(result: &JobResult) -> bool {
    match result {
        JobResult::Delivered { bytes, .. } => *bytes > 0,
        JobResult::Got(got) => got.bytes > 0,
        JobResult::Swept { .. }
        | JobResult::Looked(_)
        | JobResult::Polled(_)
        | JobResult::Answered(_)
        | JobResult::Skipped { .. } => true,
        JobResult::Parted => false,
        JobResult::Failed(failure) => failure.connected && failure.kind != FailureKind::Source,
    }
}
