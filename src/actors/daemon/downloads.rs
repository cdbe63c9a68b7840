//! What a download's job and its report mean (S2, GET): who gets which file, what follows when it
//! is here, when it failed, when it changed on the server. A file that is here is never asked for
//! again, however often the rest of its end (delete, archive) fails.

use std::sync::Arc;

use slog::{info, warn};

use super::DaemonActor;
use super::reports::Failed;
use super::route::RouteState;
use super::slots::RunningKind;
use crate::clock::Mono;
use crate::config::After;
use crate::core::names::{AttemptResult, FileOutcome};
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::journal::Key;
use crate::token;
use crate::worker::{Download, Failure, FailureKind, Got, Work};

impl DaemonActor {
    /// Gives a free slot of a route that downloads its listing, or the next file.
    pub(super) fn give_download(&mut self, index: usize, now: Mono) {
        let route = self.slots[index].route;
        if self.routes[route].problem.is_some() || self.poll(index, now) {
            return;
        }
        let Some(path) = self.take(route, now) else {
            return;
        };
        let of = Key {
            route: self.routes[route].config.name.as_str().into(),
            path: Arc::clone(&path),
        };
        let config = Arc::clone(&self.routes[route].config);
        let folder = self.routes[route].folder.clone();
        let Some(facts) = self.routes[route].backlog.facts(&path) else {
            return;
        };
        let temps = &config.publishing.temps;
        let temp = temps.temp(&path, &self.agent, &token::new());
        let attempt = Attempt::new(temp, of, self.record.journal.clone()).within(folder);
        let attempt = Arc::new(attempt);
        let download = Download {
            path: Arc::clone(&path),
            target: Arc::clone(&path),
            version: facts.stamp,
            attempt: Arc::clone(&attempt),
            doubts: facts.doubts.clone(),
            got: facts.delivered,
        };
        let target = self.routes[route].target(&path);
        self.targets.insert(target, route);
        let kind = RunningKind::File {
            path: Arc::clone(&path),
            attempt,
        };
        if !self.hand_over(index, Work::Download(download), kind) {
            self.take_back(route, &path, now);
        }
    }

    /// It is here; the remote file is finished, or not yet.
    pub(super) fn got(&mut self, slot: usize, path: &str, got: Got, now: Mono) {
        let route = self.slots[slot].route;
        let Some(facts) = self.routes[route].backlog.facts(path) else {
            return;
        };
        let first = facts.delivered.replace(got.version).is_none();
        if first {
            (facts.failures, facts.seats_lost) = (0, 0);
        }
        facts.doubts.clear();
        let incident = facts.incident.take();
        if first {
            self.tell_got(route, path, &got);
        }
        if let Some(incident) = incident {
            self.recovered(incident);
        }
        match got.left {
            None => {
                let state = &mut self.routes[route];
                let kept = (state.config.after == After::Keep).then_some(got.version);
                if let (Some(version), Some(polls)) = (kept, &mut state.polls) {
                    polls.keep(path, version);
                }
                state.backlog.remove(path);
                let target = state.target(path);
                self.targets.remove(&target);
                self.note_finished(route, path, kept);
            }
            Some(failure) => self.not_finished(slot, path, &failure, now),
        }
    }

    fn tell_got(&mut self, route: usize, path: &str, got: &Got) {
        let name = self.routes[route].config.name.clone();
        self.routes[route].delivered += 1;
        self.routes[route].delivered_bytes += got.bytes;
        let outcome = match got.name {
            Some(_) => FileOutcome::Delivered,
            None => FileOutcome::Skipped,
        };
        self.metrics.files(&name, outcome).inc();
        self.metrics.upload_attempts(&name, AttemptResult::Ok).inc();
        self.metrics.upload_bytes(&name).inc_by(got.bytes);
        let next = match self.routes[route].config.after {
            After::Delete => "it is deleted on the server",
            After::Archive(_) => "it is archived on the server",
            After::Keep => "it stays on the server and is not taken again while it is unchanged",
        };
        let file = escape(path).into_owned();
        let Some(stands_as) = &got.name else {
            info!(self.log, "file skipped"; "route" => &name, "file" => file,
                "error" => "its final name exists here (on_conflict = \"skip\")",
                "bytes" => got.version.size, "next" => next);
            return;
        };
        self.metrics
            .upload_duration(&name)
            .observe(got.took.as_secs_f64());
        self.metrics.set_last_success(&name, crate::clock::unix());
        let other = (**stands_as != *path).then(|| escape(stands_as).into_owned());
        info!(self.log, "file delivered"; "route" => &name, "file" => file, "stands_as" => other,
            "bytes" => got.version.size, "bytes_received" => got.bytes,
            "seconds" => got.took.as_secs_f64(), "next" => next);
    }

    /// It is here, but the server did not let it be deleted or archived.
    fn not_finished(&mut self, slot: usize, path: &str, failure: &Failure, now: Mono) {
        let route = self.slots[slot].route;
        self.count_timeout(route, failure);
        if !failure.connected {
            self.no_session(slot, failure, None, now);
            self.routes[route].backlog.put_back(path, now);
            return;
        }
        let backoff = self.backoff();
        let state = &mut self.routes[route];
        let Some(facts) = state.backlog.facts(path) else {
            return;
        };
        facts.failures += 1;
        let pause = backoff.pause(facts.failures, token::random());
        state.backlog.put_back(path, now + pause);
        let why = format!("it is here, but: {}", failure.error);
        state.last_failure = Some((path.into(), why));
        warn!(self.log, "the downloaded file cannot be finished on the server";
            "route" => &state.config.name, "file" => escape(path).into_owned(),
            "phase" => failure.phase.as_str(), "error" => escape(&failure.error).into_owned(),
            "next" => format!("again in {pause:.1?}; it is not downloaded again meanwhile"));
    }

    /// It did not come to be here.
    pub(super) fn download_failed(
        &mut self,
        slot: usize,
        path: &str,
        failed: Failed<'_>,
        failure: &Failure,
        now: Mono,
    ) {
        let route = self.count_failure(slot, &failed, failure, now);
        let name = self.routes[route].config.name.clone();
        match failure.kind {
            FailureKind::Journal => {
                self.unwritable("a worker could not write it".into());
                self.retry(route, path, failed, now);
            }
            FailureKind::Vanished if self.is_phantom(route, path) => {
                self.retry(route, path, failed, now);
            }
            FailureKind::Changed | FailureKind::Vanished => {
                let vanished = failure.kind == FailureKind::Vanished;
                info!(self.log, "the remote file is not what was listed"; "route" => &name,
                    "file" => escape(path).into_owned(),
                    "next" => if vanished { "it is dropped; nothing of it is here" }
                        else { "it is downloaded when it has settled" });
                let target = self.routes[route].target(path);
                self.targets.remove(&target);
                self.routes[route].backlog.remove(path);
                self.note_forgotten(route, path);
            }
            _ if !failure.connected => {
                self.no_session(slot, failure, failed.cause, now);
                self.take_back(route, path, now);
            }
            _ => self.retry(route, path, failed, now),
        }
    }

    /// Whether a file that is not there was listed before in the same version.
    fn is_phantom(&mut self, route: usize, path: &str) -> bool {
        let RouteState { backlog, polls, .. } = &mut self.routes[route];
        match (backlog.facts(path), polls) {
            (Some(facts), Some(polls)) => polls.is_phantom(path, facts.stamp),
            _ => false,
        }
    }
}
