//! Who gets which file when: free slots that have a seat at their destination or may take one, one
//! final name at a time, old temp names when there is nothing better to do.

use std::cmp::Reverse;
use std::sync::Arc;

use super::DaemonActor;
use super::slots::{Running, RunningKind};
use crate::actors::messages::{Give, Resume};
use crate::clock::{self, Mono};
use crate::config::OnConflict;
use crate::ftp;
use crate::pulse::{Attempt, Claims};
use crate::spool::journal::Key;
use crate::token;
use crate::worker::{Job, Upload, Work};

/// Pause before a file is offered again whose pair was still held.
const RELEASE_PAUSE: Mono = Mono::from_millis(50);
/// Jobs after which due sweeps go before files.
const SWEEP_EVERY: u64 = 16;

impl DaemonActor {
    /// Gives work to every free slot.
    pub(super) fn dispatch(&mut self, now: Mono) {
        self.flush();
        if self.draining.is_some() || self.record.problem.is_some() {
            return;
        }
        self.see_sessions(now);
        self.see_hunger(now);
        // Who has a session goes first: it takes no further seat. They go in one order, so that a
        // session that is not needed idles and ends; among the others the route of the greater
        // claim is first, and among equals nobody always is.
        let count = self.slots.len();
        self.turn = (self.turn + 1) % count.max(1);
        let holders: Vec<usize> = (0..count).collect();
        let mut others: Vec<usize> = (0..count).map(|i| (i + self.turn) % count).collect();
        others.sort_by_key(|index| Reverse(self.claim(self.slots[*index].route, now)));
        for (holds, order) in [(true, holders), (false, others)] {
            for index in order {
                let slot = &self.slots[index];
                if slot.free() && slot.has_session() == holds {
                    self.give(index, now);
                }
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
        if state.no_resend.is_some() {
            return;
        }
        // A folder that cannot be entered is tried by one slot at a time.
        if !state.gives() || state.suspended || now < state.paused || (state.failures > 0 && busy) {
            return;
        }
        let slot = &self.slots[index];
        if slot.has_session() && !Arc::ptr_eq(&slot.terms, &state.terms) {
            // Settings that it was not opened under hold by now: the next one is opened by them.
            self.part(index);
            return;
        }
        if !self.may_begin(index, now) {
            return;
        }
        if self.routes[route].polls.is_some() {
            self.give_download(index, now);
            return;
        }
        // A route that never runs dry has to tidy up as well.
        if self.job.is_multiple_of(SWEEP_EVERY) && self.sweep(index, now) {
            return;
        }
        while let Some(path) = self.take(route, now) {
            if self.waits_for_release(route, &path) {
                self.take_back(route, &path, now + RELEASE_PAUSE);
                continue;
            }
            let of = Key {
                route: self.routes[route].config.name.as_str().into(),
                path: Arc::clone(&path),
            };
            let claims = self.claims_of(route);
            let config = Arc::clone(&self.routes[route].config);
            let folder = self.routes[route].folder.clone();
            let Some(facts) = self.routes[route].backlog.facts(&path) else {
                continue;
            };
            if let Some(sent) = facts.delivered {
                self.finish(route, &path, sent);
                continue;
            }
            let temps = &config.publishing.temps;
            let temp = temps.temp(&path, &self.agent, &token::new());
            let attempt = Attempt::new(temp, of, self.record.journal.clone()).within(folder);
            let attempt = if config.publishing.direct {
                attempt.directly()
            } else {
                attempt
            };
            let attempt = Arc::new(match claims {
                Some((claims, place)) => attempt.claiming(claims, place),
                None => attempt,
            });
            let upload = Upload {
                path: Arc::clone(&path),
                target: Arc::clone(&path),
                nameless: None,
                settled: facts.stamp,
                attempt: Arc::clone(&attempt),
                doubts: facts.doubts.clone(),
            };
            let target = self.routes[route].target(&path);
            self.targets.insert(target, route);
            let kind = RunningKind::File {
                path: Arc::clone(&path),
                attempt,
            };
            if !self.hand_over(index, Work::Upload(upload), kind) {
                self.take_back(route, &path, now);
            }
            return;
        }
        if !self.sweep(index, now) {
            self.look(index, now);
        }
    }

    /// Where the attempts of a route claim the names that they choose, if they choose any.
    pub(super) fn claims_of(&self, route: usize) -> Option<(Claims, String)> {
        let config = &self.routes[route].config;
        let chooses = config.publishing.on_conflict == OnConflict::Rename;
        let place = self.routes[route].folder.place();
        chooses.then(|| (self.claims.clone(), place.to_string()))
    }

    pub(super) fn take(&mut self, route: usize, now: Mono) -> Option<Arc<str>> {
        let (key, folder) = {
            let server = &self.routes[route].config.server;
            (server.key(), server.folder.clone())
        };
        let targets = &self.targets;
        let free = |path: &str| {
            let holder = targets.get(&(key.clone(), format!("{folder}/{path}")));
            holder.is_none_or(|holder| *holder == route)
        };
        self.routes[route].backlog.take(now, free)
    }

    /// Whether the file is to be resumed and an old pair of it is held: then that is released
    /// first, or the old session could write beside the new one for as long as it is held.
    fn waits_for_release(&mut self, route: usize, path: &str) -> bool {
        let target = self.routes[route].target(path);
        let config = &self.routes[route].config;
        let (over, direct) = (config.resume_over, config.publishing.direct);
        let resumed = !direct
            && self.routes[route]
                .backlog
                .facts(path)
                .is_some_and(|f| ftp::resumable(&f.doubts, f.stamp, over).is_some());
        if !resumed || !self.stranded.values().any(|held| *held == target) {
            return false;
        }
        let (destination, target) = target;
        // No room for it: the next offer asks again.
        let _ = self.peers.resume.try_send(Resume {
            destination,
            target,
        });
        true
    }

    pub(super) fn hand_over(&mut self, index: usize, work: Work, kind: RunningKind) -> bool {
        self.job += 1;
        let slot = &mut self.slots[index];
        let terms = Arc::clone(&self.routes[slot.route].terms);
        let at = self.routes[slot.route].destination;
        let job = Job {
            id: self.job,
            epoch: slot.epoch,
            terms: Arc::clone(&terms),
            quirks: self.destinations[at].quirks.clone(),
            work,
        };
        let given = slot.addr.try_send(Give(job)).is_ok();
        if given {
            slot.overdue = None;
            slot.terms = terms;
            slot.opens = (!slot.has_session()).then(|| self.destinations[at].seats.era());
            slot.job = Some(Running { id: self.job, kind });
        }
        given
    }

    /// While an attempt of it is in doubt, its final name stays the route's own: nobody else's
    /// file may come under it before the old session's last rename is fenced off.
    pub(super) fn take_back(&mut self, route: usize, path: &str, until: Mono) {
        if !self.routes[route].in_doubt(path) {
            let target = self.routes[route].target(path);
            self.targets.remove(&target);
        }
        let state = &mut self.routes[route];
        let facts = state.backlog.facts(path);
        if until <= clock::mono() && facts.is_some_and(|f| f.doubts.iter().any(|a| a.is_torn())) {
            // A torn file may be seen under its final name.
            state.backlog.put_first(path);
        } else {
            state.backlog.put_back(path, until);
        }
    }
}
