//! New settings while the service runs (`config::change` says what differs): each route is moved on,
//! step by step, towards what the configuration says of it, however often that changes meanwhile.
//! What runs is finished under the settings that it began with; nothing in work is dropped.

mod recall;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix::prelude::SendError;
use actix::{Addr, AsyncContext, Handler, Message, Recipient};
use slog::{info, warn};

use super::polls::Polls;
use super::route::{self, FailedBefore, RouteState};
use super::slots::Stay;
use super::{DaemonActor, Unsent};
use crate::actors::collector::{Change, Changed, Step, Took};
use crate::actors::journal::Recall;
use crate::clock::{self, Mono};
use crate::config::change::{self, Plan};
use crate::config::{Config, Route};
use crate::core::vouch::Vouchers;
use crate::report::Reloaded;
use crate::spool::Candidate;
use crate::spool::lock::FolderLock;
use crate::worker::Terms;

/// How soon what could not be begun is tried again.
const AGAIN: Mono = Mono::from_secs(1);

/// A configuration that was newly read and found sound.
#[derive(Message)]
#[rtype(result = "Result<Applied, String>")]
pub struct Reload {
    /// It.
    pub config: Config,
    /// Locks of spools that are new.
    pub locks: Vec<FolderLock>,
    /// Who knows what an earlier life of a route left behind.
    pub recall: Recipient<Recall>,
}

/// What became of it.
pub struct Applied {
    /// For people.
    pub report: Reloaded,
    /// What holds from now on.
    pub config: Arc<Config>,
}

/// Where a route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is worked on.
    Live,
    /// Nothing of it is begun any more; what runs is finished.
    Ending,
    /// Nothing of it runs any more; its slots leave, and its spool's thread ends (or has).
    Shutting { ended: bool },
    /// It is not there.
    Gone,
    /// Another route still has the spool folder that it is to have.
    Waits,
    /// The journal is asked for what it left behind; again at that time.
    Recalls { again: Mono },
    /// Its spool's thread is started.
    Opens,
}

/// What a reload needs beside the routes themselves.
#[derive(Default)]
pub struct Reloads {
    recall: Option<Recipient<Recall>>,
    locks: HashMap<PathBuf, FolderLock>,
    /// Steps that the collector had no room for; in their order.
    unsent: VecDeque<Change>,
}

/// The settings of a route's jobs.
pub fn terms(config: &Config, route: &Arc<Route>) -> Arc<Terms> {
    Arc::new(Terms {
        route: Arc::clone(route),
        timers: config.timers.clone(),
        detection: config.heartbeat.policy().detection(),
        hold: config.quarantine.hold,
    })
}

impl DaemonActor {
    /// What differs holds from now on.
    fn apply(&mut self, reload: Reload) -> Result<Applied, String> {
        if self.draining.is_some() || self.escalating {
            return Err("the service is about to end".into());
        }
        let plan = change::plan(&self.config, &reload.config);
        let Plan {
            config,
            added,
            changed,
            removed,
            applied,
            needs_restart,
        } = plan;
        let timers = config.timers != self.config.timers
            || config.quarantine.hold != self.config.quarantine.hold;
        self.config = Arc::new(config);
        self.vouchers = if self.config.heartbeat.vouchers {
            Vouchers::all()
        } else {
            Vouchers::none()
        };
        self.reloads.recall = Some(reload.recall);
        let locks = reload.locks.into_iter();
        let locks = locks.map(|lock| (lock.path().to_owned(), lock));
        self.reloads.locks.extend(locks);
        for name in &added {
            self.metrics.add_route(name);
        }
        for state in &mut self.routes {
            state.desired = self.config.routes.get(&state.config.name).cloned();
            if timers {
                state.terms = terms(&self.config, &state.config);
            }
        }
        for (name, route) in &self.config.routes {
            if self.routes.iter().all(|r| r.config.name != *name) {
                let look_ups = self.look_ups.of_another_route();
                let mut state = RouteState::new(Arc::clone(route), look_ups, &self.config);
                state.life = Life::Gone;
                self.routes.push(state);
            }
        }
        let own = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        let report = Reloaded {
            added,
            changed,
            removed,
            applied: own(applied),
            needs_restart: own(needs_restart),
        };
        let config = Arc::clone(&self.config);
        Ok(Applied { report, config })
    }

    /// Moves every route on.
    pub(super) fn move_on(&mut self, now: Mono, this: &Addr<Self>) {
        self.send_changes();
        if self.draining.is_some() {
            return;
        }
        for index in 0..self.routes.len() {
            match self.routes[index].life {
                Life::Live => self.live(index, now, this),
                Life::Ending => self.end(index),
                Life::Shutting { ended } => self.close(index, ended),
                Life::Gone | Life::Waits => self.begin(index, now),
                Life::Recalls { again } => self.recall(index, again, now, this),
                Life::Opens => {}
            }
        }
        let wanted = |folder: &Path| self.config.routes.values().any(|r| r.spool == *folder);
        self.reloads.locks.retain(|folder, _| wanted(folder));
        self.send_changes();
    }

    /// A route that is worked on: whether that is what the configuration says.
    fn live(&mut self, index: usize, now: Mono, this: &Addr<Self>) {
        let state = &mut self.routes[index];
        match state.desired.clone() {
            Some(desired) if Arc::ptr_eq(&desired, &state.config) => {}
            Some(desired) if !change::moves(&state.config, &desired) => {
                self.swap(index, desired, now);
            }
            desired => {
                state.life = Life::Ending;
                let then = match desired {
                    None => "its later files stay in the spool",
                    Some(_) => "it begins anew with its new settings",
                };
                info!(self.log, "route ends"; "route" => &state.config.name,
                    "next" => format!("what runs of it is finished; {then}"));
            }
        }
        if std::mem::take(&mut self.routes[index].refit) {
            self.fit_slots(index, this);
        }
    }

    /// Other settings, the same spool and the same place for its files.
    fn swap(&mut self, index: usize, desired: Arc<Route>, now: Mono) {
        let name: Arc<str> = desired.name.as_str().into();
        let state = &mut self.routes[index];
        let other_server = state.config.server != desired.server;
        state.terms = terms(&self.config, &desired);
        state.limit.set(desired.rate_limit);
        state.config = Arc::clone(&desired);
        (state.failures, state.paused) = (0, Mono::ZERO);
        state.refit = true;
        state.renewing += 1;
        self.change(name, Step::Renew(desired));
        self.make_destinations();
        if other_server {
            // Perhaps the right password, or the right certificate: it is tried at once.
            let at = self.routes[index].destination;
            self.destinations[at].seats.forgive();
        }
        for slot in 0..self.slots.len() {
            let found = &self.slots[slot];
            if found.route == index && found.free() && found.has_session() {
                // It would be the next file's first act anyway; a seat is free the sooner.
                self.part(slot);
            }
        }
        info!(self.log, "route changed"; "route" => &self.routes[index].config.name,
            "next" => "what runs is finished under the old settings, what comes goes by the new");
        self.dispatch(now);
    }

    /// A route that ends: whether all that ran has come to its end.
    fn end(&mut self, index: usize) {
        let state = &mut self.routes[index];
        let stays = |desired: &Arc<Route>| !change::moves(&state.config, desired);
        if state.desired.as_ref().is_some_and(stays) {
            state.life = Life::Live;
            info!(self.log, "route goes on"; "route" => &state.config.name,
                "next" => "its files are sent again");
            return;
        }
        let name = &state.config.name;
        let runs = |s: &super::Slot| s.route == index && s.job.is_some();
        let finish = |u: &Unsent| matches!(u, Unsent::Finish(f) if *f.route == **name);
        let busy = state.finishing > 0
            || self.record.awaits(index)
            || self.unsent.iter().any(finish)
            || self.slots.iter().any(runs);
        if busy {
            return;
        }
        let name = name.as_str().into();
        state.life = Life::Shutting { ended: false };
        for slot in self.slots.iter_mut().filter(|s| s.route == index) {
            if slot.stay == Stay::Stays {
                slot.stay = Stay::Leaves;
            }
        }
        self.change(name, Step::Shut);
    }

    /// Whether nothing of a route is left.
    fn close(&mut self, index: usize, ended: bool) {
        let left = |s: &super::Slot| s.route == index && s.stay != Stay::Gone;
        if !ended || self.slots.iter().any(left) {
            return;
        }
        // What is in doubt stands in the journal, and is taken up when the route is back.
        self.targets.retain(|_, route| *route != index);
        self.routes[index] = self.routes[index].anew(&self.config);
        let name = self.routes[index].config.name.clone();
        if self.routes[index].desired.is_none() {
            self.metrics.remove_route(&name);
        }
        self.make_destinations();
        self.tell_problems();
        info!(self.log, "route ended"; "route" => name,
            "next" => "its spool is free; what is in doubt is left in the journal");
    }

    /// A route that is not there: whether it is to be, and can.
    fn begin(&mut self, index: usize, now: Mono) {
        let state = &self.routes[index];
        let Some(desired) = state.desired.clone() else {
            self.routes[index].life = Life::Gone;
            return;
        };
        if now < state.paused {
            return;
        }
        let has = |r: &&RouteState| {
            r.life != Life::Gone && r.life != Life::Waits && r.config.name != desired.name
        };
        let overlaps = |r: &&RouteState| overlap(&r.config.spool, &desired.spool);
        let other = self.routes.iter().filter(has).find(overlaps);
        if let Some(other) = other {
            if state.life == Life::Gone {
                info!(self.log, "route waits"; "route" => &desired.name,
                    "other" => &other.config.name,
                    "next" => "it begins when the other one has let its spool go");
            }
            self.routes[index].life = Life::Waits;
            return;
        }
        let terms = terms(&self.config, &desired);
        let state = &mut self.routes[index];
        state.folder = route::folder(&desired);
        state.polls = desired.get.is_some().then(Polls::default);
        state.limit.set(desired.rate_limit);
        (state.terms, state.config) = (terms, desired);
        state.life = Life::Recalls { again: Mono::ZERO };
        self.metrics.add_route(&self.routes[index].config.name);
        self.make_destinations();
    }

    fn changed(&mut self, changed: Changed, now: Mono) {
        let Changed { route, took } = changed;
        let Some(index) = self.route_index(&route) else {
            return;
        };
        let state = &mut self.routes[index];
        match (took, state.life) {
            (Took::Open(Ok(())), Life::Opens) => {
                (state.life, state.refit) = (Life::Live, true);
                info!(self.log, "route begins"; "route" => &*route,
                    "destination" => state.config.server.key(), "next" => "its files are sent");
            }
            (Took::Open(Err(error)), Life::Opens) => {
                warn!(self.log, "a route cannot begin"; "route" => &*route, "error" => error,
                    "next" => "tried again in 1 s");
                *state = state.anew(&self.config);
                state.paused = now + AGAIN;
            }
            (Took::Renew, Life::Live | Life::Ending) => {
                state.renewing = state.renewing.saturating_sub(1);
                if state.renewing == 0 {
                    self.give_back(index);
                }
            }
            (Took::Shut, Life::Shutting { .. }) => state.life = Life::Shutting { ended: true },
            _ => {}
        }
    }

    /// What was offered under old settings and not begun goes back, for the spool's thread to
    /// offer it again by the new ones. What is in doubt, or delivered, has to be settled first.
    fn give_back(&mut self, index: usize) {
        let state = &mut self.routes[index];
        let name: Arc<str> = state.config.name.as_str().into();
        let untouched = state.backlog.take_out(|facts| {
            facts.doubts.is_empty() && facts.delivered.is_none() && facts.incident.is_none()
        });
        let mut files = Vec::new();
        for (path, facts, until) in untouched {
            files.push(Candidate {
                path: path.to_string(),
                stamp: facts.stamp,
            });
            if facts.failures > 0 {
                let known = FailedBefore {
                    failures: facts.failures,
                    failing: facts.failing.map(|since| since.now(state.time)),
                    until: until.unwrap_or_default(),
                };
                state.failed_before.insert(path, known);
            }
        }
        state.wanted = 0;
        if let Some(polls) = &mut state.polls {
            // The next listing, by the new settings, tells of them.
            polls.soon();
            return;
        }
        self.change(Arc::clone(&name), Step::GiveBack(files));
        self.send_changes();
        self.want(index);
    }

    fn change(&mut self, route: Arc<str>, step: Step) {
        self.reloads.unsent.push_back(Change { route, step });
    }

    fn send_changes(&mut self) {
        while let Some(change) = self.reloads.unsent.pop_front() {
            match self.peers.change.try_send(change) {
                Ok(()) => {}
                Err(SendError::Full(change)) => return self.reloads.unsent.push_front(change),
                // The end of the collector is noticed by whoever looks after it.
                Err(SendError::Closed(_)) => {}
            }
        }
    }
}

fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

impl Handler<Reload> for DaemonActor {
    type Result = Result<Applied, String>;

    fn handle(&mut self, reload: Reload, ctx: &mut Self::Context) -> Self::Result {
        let applied = self.apply(reload)?;
        self.move_on(clock::mono(), &ctx.address());
        Ok(applied)
    }
}

impl Handler<Changed> for DaemonActor {
    type Result = ();

    fn handle(&mut self, changed: Changed, ctx: &mut Self::Context) {
        let now = clock::mono();
        self.changed(changed, now);
        self.move_on(now, &ctx.address());
        self.dispatch(now);
    }
}
