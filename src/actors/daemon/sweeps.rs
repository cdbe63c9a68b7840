//! Temp names of attempts without a clear result, which a late server may have made again: taken
//! away once more when the pair of their session is gone for so long that it is late no more. The
//! journal has them, so that neither a restart nor a reload leaves one to the server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slog::{debug, info};

use super::DaemonActor;
use super::route::Due;
use super::slots::RunningKind;
use crate::clock::{self, Mono};
use crate::spool::journal::{Change, OldName};
use crate::worker::{Sweep, Work};

impl DaemonActor {
    /// Sweeps the temp name of an attempt of `path` when it is due and in doubt no more.
    pub(super) fn sweep_later(
        &mut self,
        route: usize,
        temp: String,
        path: Option<Arc<str>>,
        due: Due,
    ) {
        self.note_sweep(route, temp.clone(), Some(clock::unix()));
        self.remember_sweep(route, temp, path, due);
    }

    /// The same for one that the journal has already.
    fn remember_sweep(&mut self, route: usize, temp: String, path: Option<Arc<str>>, due: Due) {
        if let Some(left) = self.routes[route].sweep_later(temp, path, due) {
            self.note_sweep(route, left, None);
        }
    }

    /// Those were tried in vain. The journal has them since before.
    pub(super) fn sweep_again(&mut self, route: usize, temps: Vec<String>, now: Mono) {
        let due = Due::At(now + self.config.quarantine.hold);
        for temp in temps {
            self.remember_sweep(route, temp, None, due);
        }
    }

    /// Those were tried, and these of them may still be there.
    pub(super) fn swept(&mut self, route: usize, temps: &[String], left: Vec<String>, now: Mono) {
        for gone in temps.iter().filter(|temp| !left.contains(temp)) {
            self.note_sweep(route, gone.clone(), None);
        }
        debug!(self.log, "old temp names swept"; "route" => &self.routes[route].config.name,
            "gone" => temps.len() - left.len(), "left" => left.len(),
            "next" => "what is left is tried again");
        self.sweep_again(route, left, now);
    }

    fn note_sweep(&self, route: usize, temp: String, at: Option<f64>) {
        let route = self.routes[route].config.name.as_str().into();
        self.note(Change::Sweep { route, temp, at });
    }

    /// The journal had to be begun anew: it is told all of them.
    pub(super) fn note_sweeps(&self) {
        for (index, route) in self.routes.iter().enumerate() {
            for temp in route.sweeps() {
                self.note_sweep(index, temp.to_owned(), Some(clock::unix()));
            }
        }
    }

    /// Takes up what an earlier life of a route had still to sweep: what it noted, and what its
    /// end left in doubt. Whatever pairs it held went with it, but a server that is late may not
    /// have seen that yet.
    pub(super) fn take_up_sweeps(&mut self, route: usize, old: Vec<String>) {
        let due = Due::At(clock::mono() + self.config.quarantine.hold);
        let mut noted: HashSet<String> = old.into_iter().collect();
        let mut doubts = Vec::new();
        for (path, facts) in self.routes[route].backlog.iter() {
            for attempt in facts.doubts.iter().filter(|a| a.may_leave_temp()) {
                doubts.push((attempt.temp.clone(), Arc::clone(path)));
            }
        }
        for (temp, path) in doubts {
            self.counters.journal.count();
            if noted.remove(&temp) {
                self.remember_sweep(route, temp, Some(path), due);
            } else {
                self.sweep_later(route, temp, Some(path), due);
            }
        }
        if !noted.is_empty() {
            info!(self.log, "old temp names taken up from the journal";
                "route" => &self.routes[route].config.name, "count" => noted.len(),
                "next" => "they are taken away once more");
        }
        for temp in noted {
            self.counters.journal.count();
            self.remember_sweep(route, temp, None, due);
        }
    }

    /// The same for all routes, at the start.
    pub(super) fn take_up_all_sweeps(&mut self) {
        let mut of: HashMap<Arc<str>, Vec<String>> = HashMap::new();
        for OldName { route, temp } in std::mem::take(&mut self.old_names) {
            of.entry(route).or_default().push(temp);
        }
        // Those of a route that is not there are left in the journal, for a day.
        for route in 0..self.routes.len() {
            let noted = of.remove(self.routes[route].config.name.as_str());
            self.take_up_sweeps(route, noted.unwrap_or_default());
        }
    }

    /// Gives a slot the old temp names that are due; true if there were any.
    pub(super) fn sweep(&mut self, index: usize, now: Mono) -> bool {
        let route = self.slots[index].route;
        let temps = self.routes[route].due_sweeps(now);
        if temps.is_empty() {
            return false;
        }
        let sweep = Work::Sweep(Sweep {
            temps: temps.clone(),
        });
        let kind = RunningKind::Sweep {
            temps: temps.clone(),
        };
        let given = self.hand_over(index, sweep, kind);
        if !given {
            self.sweep_again(route, temps, now);
        }
        given
    }
}
