//! The daemon's talk with the journal: what has to stand there before it acts (a delivered source is
//! removed), what it only notes, what it knows from an earlier life, and what it does while the
//! journal cannot be written: it takes no new work.

use std::collections::HashMap;
use std::sync::Arc;

use slog::{info, warn};

use super::DaemonActor;
use super::giving_up::{Since, fresh};
use super::route::{FailedBefore, FileFacts};
use super::slots::RunningKind;
use crate::actors::journal::Journaled;
use crate::clock::{self, Mono};
use crate::core::journey::Stage;
use crate::failpoint;
use crate::log::escape;
use crate::pulse::Attempt;
use crate::spool::Stamp;
use crate::spool::journal::{Change, Done, Failing, Journal, Key, Unfinished, lower_outlived};

/// How often a journal that cannot be written is tried again.
const AGAIN: Mono = Mono::from_secs(1);

/// A delivery that has to stand in the journal before its source is finished.
struct Awaited {
    route: usize,
    path: Arc<str>,
    sent: Stamp,
    at: f64,
    /// The final name, where it is another one than the file's own.
    name: Option<String>,
    /// It is on its way since then; none: it was refused.
    under_way: Option<Mono>,
}

/// What the daemon knows of the journal.
pub struct Record {
    pub journal: Journal,
    token: u64,
    awaited: HashMap<u64, Awaited>,
    /// Why it cannot be written now.
    pub problem: Option<String>,
    try_at: Mono,
}

impl Record {
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            token: 0,
            awaited: HashMap::new(),
            problem: None,
            try_at: Mono::ZERO,
        }
    }

    /// Whether sources of this route wait for it.
    pub fn awaits(&self, route: usize) -> bool {
        self.awaited.values().any(|awaited| awaited.route == route)
    }

    /// A number for a change whose fate is to be told.
    pub fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    /// Whether sources wait for it.
    pub fn busy(&self) -> bool {
        !self.awaited.is_empty()
    }
}

impl DaemonActor {
    fn key(&self, route: usize, path: &str) -> Key {
        Key {
            route: self.routes[route].config.name.as_str().into(),
            path: path.into(),
        }
    }

    /// Notes something that nobody has to wait for: what the journal says without it is safe, it
    /// only costs work after a crash.
    pub(super) fn note(&self, change: Change) {
        self.record.journal.put(change, Done::Nobody);
    }

    pub(super) fn note_waiting(
        &self,
        route: usize,
        path: &str,
        (failures, failing): (u32, Failing),
        pause: Mono,
        error: &str,
    ) {
        self.note(Change::Waiting {
            of: self.key(route, path),
            failures,
            next: clock::unix() + pause.as_secs_f64(),
            error: error.to_owned(),
            failing,
        });
    }

    pub(super) fn note_finished(&self, route: usize, path: &str, kept: Option<Stamp>) {
        let of = self.key(route, path);
        self.note(Change::Finished { of, kept });
    }

    pub(super) fn note_forgotten(&self, route: usize, path: &str) {
        let of = self.key(route, path);
        self.note(Change::Forgotten { of });
    }

    /// It was delivered: its source is finished once that stands in the journal.
    pub(super) fn record_delivery(
        &mut self,
        route: usize,
        path: &str,
        sent: Stamp,
        name: Option<String>,
    ) {
        let token = self.record.next_token();
        let awaited = Awaited {
            route,
            path: path.into(),
            sent,
            at: clock::unix(),
            name,
            under_way: None,
        };
        self.record.awaited.insert(token, awaited);
        self.send_awaited(token);
    }

    fn send_awaited(&mut self, token: u64) {
        let Some(awaited) = self.record.awaited.get(&token) else {
            return;
        };
        let change = Change::Delivered {
            of: self.key(awaited.route, &awaited.path),
            sent: awaited.sent,
            at: awaited.at,
            name: awaited.name.clone(),
        };
        let under_way = self.record.journal.put(change, Done::Daemon(token));
        if !self.record.journal.is_kept() {
            return self.delivery_stands(token);
        }
        if let Some(awaited) = self.record.awaited.get_mut(&token) {
            awaited.under_way = under_way.then(clock::mono);
        }
    }

    fn delivery_stands(&mut self, token: u64) {
        if let Some(Awaited {
            route, path, sent, ..
        }) = self.record.awaited.remove(&token)
        {
            failpoint::at("delivery-stands");
            self.finish(route, &path, sent);
        }
    }

    pub(super) fn journaled(&mut self, journaled: Journaled) {
        if journaled.anew {
            self.note_all_anew();
        }
        match journaled.error {
            None => {
                if self.record.problem.take().is_some() {
                    self.tell_problems();
                    self.save_incidents(false);
                }
                for token in journaled.tokens {
                    self.incident_saved(token);
                    self.delivery_stands(token);
                }
            }
            Some(error) => {
                for token in journaled.tokens {
                    if let Some(awaited) = self.record.awaited.get_mut(&token) {
                        awaited.under_way = None;
                    }
                }
                self.unwritable(error);
            }
        }
    }

    /// The journal had to be begun anew: it is told what is known of files that are not finished.
    fn note_all_anew(&mut self) {
        self.save_incidents(true);
        for running in self.slots.iter().filter_map(|slot| slot.job.as_ref()) {
            if let RunningKind::File { attempt, .. } = &running.kind {
                attempt.note_anew();
            }
        }
        self.note_sweeps();
        for (index, route) in self.routes.iter().enumerate() {
            for (path, facts) in route.backlog.iter() {
                self.counters.journal.count();
                facts.doubts.iter().for_each(|attempt| attempt.note_anew());
                if let Some(sent) = facts.delivered {
                    // Another final name was told in the log, and in the journal that is aside.
                    let (of, at, name) = (self.key(index, path), clock::unix(), None);
                    self.note(Change::Delivered { of, sent, at, name });
                }
            }
        }
    }

    /// The journal cannot be written: no new work, and it is tried again.
    pub(super) fn unwritable(&mut self, error: String) {
        if self.record.problem.is_none() {
            self.record.try_at = clock::mono() + AGAIN;
            warn!(self.log, "no new work is taken"; "error" => &error,
                "next" => "the journal is tried again every second");
        }
        self.record.problem = Some(error);
        self.tell_problems();
    }

    /// Tries again what was refused, and whether the journal can be written.
    pub(super) fn retry_journal(&mut self, now: Mono) {
        if self.record.journal.is_lost() {
            return self.lost("the journal's thread has ended");
        }
        if self.record.busy() {
            // What was written may wait for room in this mailbox.
            self.record.journal.ring();
        }
        let bound = self.config.timers.disk + self.detection();
        let stuck = |a: &Awaited| a.under_way.is_some_and(|since| now >= since + bound);
        if self.record.awaited.values().any(stuck) {
            return self.lost("the journal does not answer");
        }
        // Where nothing is wrong a delivery can only have found the queue full.
        let refused = self
            .record
            .awaited
            .iter()
            .filter(|(_, a)| a.under_way.is_none());
        let refused: Vec<u64> = refused.map(|(token, _)| *token).collect();
        if now < self.record.try_at || (refused.is_empty() && self.record.problem.is_none()) {
            return;
        }
        self.record.try_at = now + AGAIN;
        for token in refused {
            self.send_awaited(token);
        }
        if self.record.problem.is_some() {
            self.record.journal.put(Change::Probe, Done::Daemon(0));
        }
    }

    /// Takes up what an earlier life left behind: doubts are resolved and delivered sources
    /// finished, whether or not the spool still has them; a file that only failed keeps its count.
    pub(super) fn remember(&mut self, unfinished: Vec<Unfinished>) {
        let now = clock::mono();
        let (mut doubts, mut sources) = (0, 0);
        for mut file in unfinished {
            failpoint::at("row-taken-up");
            self.counters.journal.count();
            let Unfinished { of, .. } = &file;
            let Some(route) = self.route_index(&of.route) else {
                warn!(self.log, "the journal knows a file of no route";
                    "route" => escape(&of.route).into_owned(), "file" => escape(&of.path).into_owned(),
                    "next" => "it is left in the journal until the route is back");
                continue;
            };
            let of = of.clone();
            lower_outlived(&mut file.attempts);
            let attempts: Vec<_> = file
                .attempts
                .into_iter()
                .map(|known| {
                    let journal = self.record.journal.clone();
                    let claims = self.claims_of(route);
                    let folder = &self.routes[route].folder;
                    Arc::new(Attempt::known(known, of.clone(), journal, claims, folder))
                })
                .filter(|attempt| attempt.stage() != Stage::Opened)
                .collect();
            let stamp = file
                .delivered
                .or_else(|| attempts.iter().rev().find_map(|a| a.source()));
            let wait = (file.next - clock::unix()).clamp(0.0, self.config.retry.max.as_secs_f64());
            let incident = self.incident_of(&of.route, &of.path);
            doubts += usize::from(!attempts.is_empty());
            sources += usize::from(file.delivered.is_some());
            let open = !attempts.is_empty() || file.delivered.is_some();
            let stamp = stamp.unwrap_or(Stamp {
                dev: 0,
                ino: 0,
                size: 0,
                mtime_ns: 0,
            });
            let time = self.routes[route].time;
            let facts = FileFacts {
                failures: file.failures,
                failing: file.failing.map(|told| Since::known(told, time)),
                doubts: attempts,
                incident,
                delivered: file.delivered,
                ..fresh(stamp)
            };
            let until = now + Mono::from_secs_f64(wait);
            if open {
                let target = self.routes[route].target(&of.path);
                self.targets.insert(target, route);
                self.routes[route]
                    .backlog
                    .add_waiting(&of.path, facts, until);
            } else {
                let before = FailedBefore {
                    failures: facts.failures,
                    failing: file.failing,
                    until,
                };
                self.routes[route].failed_before.insert(of.path, before);
            }
        }
        if doubts + sources > 0 {
            info!(self.log, "taken up from the journal"; "in_doubt" => doubts,
                "delivered" => sources, "next" => "they are resolved before anything else");
        }
    }
}
