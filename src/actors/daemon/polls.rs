//! Routes that download: when their remote folder is listed, and what of a listing is taken into
//! work (S2, GET). A file is taken once two listings agree about it (`core::arrivals`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slog::{debug, warn};

use super::DaemonActor;
use super::giving_up::{Since, fresh};
use super::route::FileFacts;
use super::slots::RunningKind;
use super::sources::{AHEAD, KNOWN};
use crate::clock::{self, Mono};
use crate::core::arrivals::{Arrival, Settled, Settling};
use crate::core::backlog::Place;
use crate::core::names::{Cause, Phase};
use crate::log::{escape, escape_reply};
use crate::spool::Stamp;
use crate::spool::journal::Change;
use crate::spool::said::{Said, Say};
use crate::token;
use crate::worker::{Dates, Failure, Poll, Polled, Work};

/// Kept files of which one change of the journal tells: nobody waits long for its transaction.
const NOTED: usize = 1_000;
/// Files remembered that are listed and not there.
const PHANTOMS: usize = 1_000;

/// The listings of one route that downloads.
#[derive(Default)]
pub struct Polls {
    /// When the next one is due.
    next: Mono,
    running: bool,
    /// How many failed in a row, and why the last one did.
    failures: u32,
    error: String,
    /// What earlier lives left in the local folder is gone.
    tidied: bool,
    settling: Settling,
    /// Files that were taken and stay on the server, each in its version.
    known: Arc<HashMap<Arc<str>, Stamp>>,
    /// Those of them that the last listing did not show; none: there was none yet, and what an
    /// earlier life noted of them may not be true any more.
    missing: Option<HashSet<Arc<str>>>,
    dates: Arc<Dates>,
    /// Files that were listed and not there when they were asked for.
    phantoms: HashMap<Arc<str>, Stamp>,
    /// Names that were refused and told.
    said: Said,
}

impl Polls {
    /// Files that stay on the server are known from an earlier life.
    pub fn know(&mut self, kept: Vec<(Arc<str>, Stamp)>) {
        self.known = Arc::new(kept.into_iter().collect());
    }

    /// A file was taken and stays.
    pub fn keep(&mut self, path: &str, version: Stamp) {
        // While a listing is under way it has the old ones: one copy more.
        Arc::make_mut(&mut self.known).insert(path.into(), version);
    }

    /// A file was listed in this version, and is not there. True if that is the server's way with
    /// it: some list another name in the place of one that they do not like.
    pub fn is_phantom(&mut self, path: &str, version: Stamp) -> bool {
        if self.phantoms.len() >= PHANTOMS {
            self.phantoms.clear();
        }
        self.phantoms.insert(path.into(), version) == Some(version)
    }

    /// A listing is wanted as soon as may be.
    pub fn soon(&mut self) {
        self.next = Mono::ZERO;
    }

    /// Whether one is to be begun.
    pub fn due(&self, now: Mono) -> bool {
        !self.running && now >= self.next
    }

    /// Files that may still grow.
    pub fn settling(&self) -> u64 {
        self.settling.len() as u64
    }

    /// Why the remote folder is not listed, if so.
    pub fn problem(&self, now: Mono) -> Option<String> {
        let again = self.next.saturating_sub(now).as_secs_f64();
        let (failures, why) = (self.failures, escape(&self.error));
        (failures > 0)
            .then(|| format!("not listed after {failures} tries: {why}; next try in {again:.1} s"))
    }
}

impl DaemonActor {
    /// Gives a slot the listing that is due; true if it got it.
    pub(super) fn poll(&mut self, index: usize, now: Mono) -> bool {
        let route = self.slots[index].route;
        let state = &self.routes[route];
        // Enough is known for a while.
        if !state.poll_due(now) || state.backlog.ready() >= AHEAD {
            return false;
        }
        let Some(polls) = &state.polls else {
            return false;
        };
        let doubts = state.backlog.iter().flat_map(|(_, facts)| &facts.doubts);
        let kept = || doubts.map(|attempt| attempt.temp.clone()).collect();
        let poll = Poll {
            agent: self.agent.clone(),
            tidy: (!polls.tidied).then(kept),
            known: Arc::clone(&polls.known),
            dates: Arc::clone(&polls.dates),
        };
        let given = self.hand_over(index, Work::Poll(poll), RunningKind::Poll);
        if let Some(polls) = &mut self.routes[route].polls {
            polls.running = given;
        }
        given
    }

    /// The remote folder was listed.
    pub(super) fn polled(&mut self, route: usize, polled: Polled, now: Mono) {
        let state = &mut self.routes[route];
        let (name, settle) = (state.config.name.clone(), state.config.settle);
        let period = state.config.get.as_ref().map_or(settle, |get| get.poll);
        let Some(polls) = &mut state.polls else {
            return;
        };
        (polls.running, polls.failures, polls.tidied) = (false, 0, true);
        polls.dates = Arc::new(polled.dates);
        for (refused, reason) in &polled.refused {
            let say = polls.said.ask(reason, refused);
            if say != Say::No {
                self.metrics.refused_names(&name).inc();
                warn!(self.log, "a listed name is refused"; "route" => &name,
                "name" => escape_reply(refused), "cause" => *reason,
                "next" => match say {
                    Say::Last => "it is left alone on the server; no more of them are told",
                    _ => "it is left alone on the server",
                });
            }
        }
        let listed: HashSet<Arc<str>> = polled.files.iter().map(|f| Arc::clone(&f.path)).collect();
        let backlog = &mut state.backlog;
        let mut files = polled.files;
        let oldest = files.iter().filter_map(|f| f.version.modified).min();
        self.metrics.spool_files(&name).set(files.len() as i64);
        let bytes = files.iter().map(|f| f.version.size).sum::<u64>();
        self.metrics.spool_bytes(&name).set(bytes as i64);
        self.metrics
            .set_oldest_pending(&name, oldest.map(|t| t as f64));
        // In work already, or taken while the listing was under way.
        files.retain(|file| {
            self.counters.scan.count();
            let same = |stamp: Stamp| stamp.to_remote().agrees(&file.version);
            let in_work = backlog.facts(&file.path).is_some_and(|f| same(f.stamp));
            !in_work
                && !polls
                    .known
                    .get(&file.path)
                    .is_some_and(|stamp| same(*stamp))
        });
        let settled = polls
            .settling
            .listed(files, settle, polled.began, polled.ended);
        let Settled { files, fresh } = settled;
        // A second look at what is new, as soon as it can have settled.
        polls.next = now + if fresh { settle.min(period) } else { period };
        if let Some(missing) = polled.missing {
            self.note_missing(route, missing);
            if !polled.more {
                self.drop_unlisted(route, &listed);
            }
        }
        for file in files {
            self.counters.scan.count();
            self.arrived(route, &file);
        }
    }

    /// Files that are not in work and not on the server any more are none of ours.
    fn drop_unlisted(&mut self, route: usize, listed: &HashSet<Arc<str>>) {
        let backlog = &self.routes[route].backlog;
        let gone = |path: &Arc<str>, facts: &FileFacts| {
            let idle = !matches!(backlog.place(path), Some(Place::InWork) | None);
            let untouched = facts.doubts.is_empty() && facts.delivered.is_none();
            idle && untouched && !listed.contains(path)
        };
        let gone = backlog.iter().filter(|(path, facts)| gone(path, facts));
        let gone: Vec<_> = gone.map(|(path, _)| Arc::clone(path)).collect();
        for path in gone {
            self.counters.scan.count();
            debug!(self.log, "a remote file is gone before it was downloaded";
                "route" => &self.routes[route].config.name, "file" => escape(&path).into_owned(),
                "next" => "it is dropped");
            self.routes[route].backlog.remove(&path);
            self.note_forgotten(route, &path);
        }
    }

    /// A remote file may be taken.
    fn arrived(&mut self, route: usize, file: &Arrival) {
        let name = self.routes[route].config.name.clone();
        let stamp = Stamp::of_remote(file.version);
        let before = self.routes[route].failed_before.remove(&file.path);
        let incident = before.as_ref();
        let incident = incident.and_then(|_| self.incident_of(&name, &file.path));
        let state = &mut self.routes[route];
        if let Some(known) = state.backlog.facts(&file.path) {
            // It is here in another version, or an attempt of that one is in doubt: each is settled
            // as what it was; the next listing tells whether this one is still there.
            if known.delivered.is_none() {
                known.stamp = stamp;
            }
            return;
        }
        if state.backlog.len() >= KNOWN {
            // It comes again.
            return;
        }
        let mut facts = fresh(stamp);
        facts.incident = incident;
        match before {
            None => state.backlog.add(&file.path, facts),
            Some(before) => {
                facts.failures = before.failures;
                let time = state.time;
                facts.failing = before.failing.map(|told| Since::known(told, time));
                state.backlog.add_waiting(&file.path, facts, before.until)
            }
        };
    }

    /// Kept files that are not there any more are forgotten in time, as those in a spool are.
    fn note_missing(&mut self, route: usize, missing: Vec<Arc<str>>) {
        let name: Arc<str> = self.routes[route].config.name.as_str().into();
        let Some(polls) = &mut self.routes[route].polls else {
            return;
        };
        let missing: HashSet<Arc<str>> = missing.into_iter().collect();
        let (gone, back): (Vec<_>, Vec<_>) = match &polls.missing {
            None => {
                let known = polls.known.keys().cloned();
                known.partition(|path| missing.contains(path))
            }
            Some(before) => (
                missing.difference(before).cloned().collect(),
                before.difference(&missing).cloned().collect(),
            ),
        };
        polls.missing = Some(missing);
        for (paths, gone) in [(gone, Some(clock::unix())), (back, None)] {
            for paths in paths.chunks(NOTED) {
                let (route, paths) = (Arc::clone(&name), paths.to_vec());
                self.note(Change::Gone { route, paths, gone });
            }
        }
    }

    /// It could not be listed; why that was over its bound, if it was.
    pub(super) fn poll_failed(
        &mut self,
        slot: usize,
        failure: &Failure,
        cause: Option<Cause>,
        now: Mono,
    ) {
        let route = self.slots[slot].route;
        self.count_timeout(route, failure);
        if !failure.connected {
            self.no_session(slot, failure, cause, now);
            if let Some(polls) = &mut self.routes[route].polls {
                (polls.running, polls.next) = (false, now);
            }
            return;
        }
        if failure.code == Some(421) {
            self.seat_lost(route, now);
            self.ask_for_seat(self.routes[route].destination, failure);
        }
        self.poll_again(route, &failure.error, Some((failure.phase, cause)), now);
    }

    /// It is tried again, in its back-off.
    pub(super) fn poll_again(
        &mut self,
        route: usize,
        error: &str,
        at: Option<(Phase, Option<Cause>)>,
        now: Mono,
    ) {
        let backoff = self.backoff();
        let state = &mut self.routes[route];
        let Some(polls) = &mut state.polls else {
            return;
        };
        polls.running = false;
        polls.failures += 1;
        error.clone_into(&mut polls.error);
        let pause = backoff.pause(polls.failures, token::random());
        polls.next = now + pause;
        warn!(self.log, "the remote folder cannot be listed"; "route" => &state.config.name,
            "failures" => polls.failures, "phase" => at.map(|(phase, _)| phase.as_str()),
            "cause" => at.and_then(|(_, cause)| cause).map(Cause::as_str),
            "error" => escape(error).into_owned(),
            "next" => format!("again in {pause:.1?}; what is there stays there"));
    }
}
