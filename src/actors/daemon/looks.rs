//! Temp files of this agent that nobody knows any more (a state folder was lost, a sweep never came
//! to its end): looked for once a day in each folder that a route uploads to, by a session that
//! has nothing else to do, and removed when they are a day old.

use std::collections::{BTreeMap, HashSet};

use slog::warn;

use super::DaemonActor;
use super::route::Due;
use super::slots::RunningKind;
use crate::clock::{self, Mono};
use crate::log::escape;
use crate::token;
use crate::worker::{Look, Seen, Work, base};

/// After the start of a route nothing is looked for: it has other things to do.
const FIRST: Mono = Mono::from_secs(15);
/// Between two looks at one folder.
const EVERY: Mono = Mono::from_secs(24 * 3600);
/// Folders of a route that are looked at; what is beyond that is left to the server.
const FOLDERS: usize = 200;

/// When which folder of a route is looked at.
pub struct Looks {
    first: Mono,
    next: BTreeMap<String, Mono>,
}

impl Looks {
    /// Those of a route that begins now: the remote folder itself.
    pub fn new() -> Self {
        let first = clock::mono() + FIRST;
        Self {
            first,
            next: BTreeMap::from([(String::new(), first)]),
        }
    }

    /// A file was uploaded to that path below the remote folder.
    pub fn uploaded(&mut self, path: &str) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if self.next.len() < FOLDERS && !self.next.contains_key(folder) {
            self.next.insert(folder.to_owned(), self.first);
        }
    }

    /// Takes out a folder that is to be looked at; whatever comes of it, it is again in a day.
    fn take(&mut self, now: Mono) -> Option<String> {
        let (folder, next) = self.next.iter_mut().find(|(_, next)| **next <= now)?;
        *next = now + EVERY;
        Some(folder.clone())
    }
}

impl DaemonActor {
    /// Has an idle session look for old temp files; true if it does.
    pub(super) fn look(&mut self, index: usize, now: Mono) -> bool {
        let slot = &self.slots[index];
        let state = &mut self.routes[slot.route];
        let publishing = &state.config.publishing;
        // Without temp names there is nothing of ours to look for.
        if publishing.direct || state.polls.is_some() || !slot.has_session() {
            return false;
        }
        let Some(folder) = state.looks.take(now) else {
            return false;
        };
        let beside = match &*folder {
            "" => "clock".to_owned(),
            folder => format!("{folder}/clock"),
        };
        let clock = publishing.temps.temp(&beside, &self.agent, &token::new());
        let look = Look {
            folder,
            agent: self.agent.clone(),
            clock: clock.clone(),
            journal: self.config.state_dir.join("journal.db"),
        };
        self.hand_over(index, Work::Look(look), RunningKind::Look { clock })
    }

    /// A look came to its end: what it found is swept, if nobody here knows it either.
    pub(super) fn looked(&mut self, route: usize, clock: String, seen: Seen, now: Mono) {
        if seen.asked {
            self.look_failed(route, clock, Due::At(now + self.config.quarantine.hold));
        }
        let known = self.known_temps();
        let unknown = |temp: &String| !known.contains(base(temp));
        let old: Vec<String> = seen.old.into_iter().filter(unknown).collect();
        if old.is_empty() {
            return;
        }
        let names: Vec<_> = old.iter().map(|name| escape(name)).collect();
        warn!(self.log, "old temp files of this agent found";
            "route" => &self.routes[route].config.name, "files" => names.join(", "),
            "next" => "they are a day old, no attempt is of them: they are removed");
        for temp in old {
            self.sweep_later(route, temp, None, Due::At(now));
        }
    }

    /// It may have left its empty file there.
    pub(super) fn look_failed(&mut self, route: usize, clock: String, due: Due) {
        self.sweep_later(route, clock, None, due);
    }

    /// The temp names, without their folders, that are in work, in doubt, or to be swept.
    fn known_temps(&self) -> HashSet<String> {
        let mut known = HashSet::new();
        let mut add = |temp: &str| {
            known.insert(base(temp).to_owned());
        };
        for job in self.slots.iter().filter_map(|slot| slot.job.as_ref()) {
            match &job.kind {
                RunningKind::File { attempt, .. } => add(&attempt.temp),
                RunningKind::Sweep { temps } => temps.iter().for_each(|temp| add(temp)),
                RunningKind::Look { clock } => add(clock),
                RunningKind::Part | RunningKind::Poll => {}
            }
        }
        for route in &self.routes {
            route.sweeps().for_each(&mut add);
            let facts = route.backlog.iter().flat_map(|(_, facts)| &facts.doubts);
            facts.for_each(|attempt| add(&attempt.temp));
        }
        known
    }
}
