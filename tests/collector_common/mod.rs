//! What the collector's tests share: a collector of one route in a system of its own, and a daemon
//! that writes down what it is told.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use ftpulse::actors::collector::{
    Change, Changed, CollectorActor, Daemon, Finish, FinishedSource, Forget, Found, Revived,
    RouteSpool, SpoolState, Step, Took, Want,
};
use ftpulse::clock;
use ftpulse::config::Route;
use ftpulse::spool::lock::FolderLock;
use ftpulse::spool::{Candidate, Clock};

use crate::spool_common::{age, log};

/// The bound of every wait for something that must come: generous, as machines are slow.
pub const LONG: Duration = Duration::from_secs(60);
/// How long to listen for something that must not come, where no event can tell.
pub const SILENCE: Duration = Duration::from_millis(1_500);

#[derive(Debug)]
pub enum Told {
    Found(Found),
    State(SpoolState),
    Finished(FinishedSource),
    Changed(Changed),
}

pub struct Probe(Sender<Told>);

impl Actor for Probe {
    type Context = Context<Self>;
}

macro_rules! told {
    ($message:ident, $variant:ident) => {
        impl Handler<$message> for Probe {
            type Result = ();
            fn handle(&mut self, message: $message, _: &mut Self::Context) {
                let _ = self.0.send(Told::$variant(message));
            }
        }
    };
}
told!(Found, Found);
told!(SpoolState, State);
told!(FinishedSource, Finished);
told!(Changed, Changed);

impl Handler<Revived> for Probe {
    type Result = ();
    fn handle(&mut self, _: Revived, _: &mut Self::Context) {}
}

pub struct Rig {
    pub collector: Addr<CollectorActor>,
    pub system: System,
    pub thread: Option<std::thread::JoinHandle<()>>,
    pub told: Receiver<Told>,
    pub states: Vec<SpoolState>,
    pub route: Arc<Route>,
    pub lines: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    pub fn new(route: Route) -> Self {
        Self::with_lock(route, None)
    }

    pub fn with_lock(route: Route, lock: Option<FolderLock>) -> Self {
        let (tell, told) = channel();
        let (up, started) = channel();
        let (log, lines) = log();
        let route = Arc::new(route);
        let spool = RouteSpool {
            route: route.clone(),
            lock,
            kept: Vec::new(),
            rows: None,
        };
        let thread = std::thread::spawn(move || {
            let system = System::new();
            system.block_on(async move {
                let probe = Probe(tell).start();
                let daemon = Daemon {
                    found: probe.clone().recipient(),
                    state: probe.clone().recipient(),
                    finished: probe.clone().recipient(),
                    changed: probe.clone().recipient(),
                    revived: probe.recipient(),
                };
                let clock = Clock::system();
                let collector = CollectorActor::new(&daemon, vec![spool], &log, clock).unwrap();
                up.send((collector.start(), System::current())).unwrap();
            });
            system.run().unwrap();
        });
        let (collector, system) = started.recv_timeout(LONG).unwrap();
        let thread = Some(thread);
        Self {
            collector,
            system,
            thread,
            told,
            states: vec![],
            route,
            lines,
        }
    }

    pub fn want(&self, n: usize) {
        self.collector
            .try_send(Want {
                route: "main".into(),
                n,
            })
            .unwrap();
    }

    pub fn finish(&self, file: &Candidate, token: u64) {
        let Candidate { path, stamp: sent } = file.clone();
        self.collector
            .try_send(Finish {
                route: "main".into(),
                path,
                sent,
                story: None,
                token,
            })
            .unwrap();
    }

    pub fn forget(&self, path: &str) {
        self.collector
            .try_send(Forget {
                route: "main".into(),
                path: path.into(),
            })
            .unwrap();
    }

    /// The next message of use, states noted on the way; none when the time is over.
    pub fn next<T>(
        &mut self,
        bound: Duration,
        mut pick: impl FnMut(Told) -> Option<T>,
    ) -> Option<T> {
        let end = now() + bound;
        while let Some(left) = end.checked_sub(now()) {
            match self.told.recv_timeout(left).ok()? {
                Told::State(state) => self.states.push(state),
                other => {
                    if let Some(picked) = pick(other) {
                        return Some(picked);
                    }
                }
            }
        }
        None
    }

    pub fn found_within(&mut self, bound: Duration) -> Vec<Candidate> {
        let pick = |told| match told {
            Told::Found(found) => Some(found.files),
            _ => None,
        };
        self.next(bound, pick).unwrap_or_default()
    }

    /// Waits for so many files.
    pub fn found(&mut self, n: usize) -> Vec<Candidate> {
        let mut files = Vec::new();
        while files.len() < n {
            let more = self.found_within(LONG);
            assert!(
                !more.is_empty(),
                "only {} of {n} found; log: {:#?}",
                files.len(),
                self.said()
            );
            assert!(more.len() <= 256);
            files.extend(more);
        }
        files
    }

    pub fn paths(&mut self, n: usize) -> Vec<String> {
        self.found(n).into_iter().map(|file| file.path).collect()
    }

    pub fn nothing_found(&mut self) {
        let found = self.found_within(SILENCE);
        assert!(found.is_empty(), "{found:?}");
    }

    pub fn change(&self, step: Step) {
        self.collector
            .try_send(Change {
                route: "main".into(),
                step,
            })
            .unwrap();
    }

    pub fn changed(&mut self) -> Took {
        let pick = |told| match told {
            Told::Changed(changed) => Some(changed.took),
            _ => None,
        };
        self.next(LONG, pick).expect("an answer to a step")
    }

    pub fn finished(&mut self) -> FinishedSource {
        let pick = |told| match told {
            Told::Finished(finished) => Some(finished),
            _ => None,
        };
        self.next(LONG, pick).expect("an answer to Finish")
    }

    /// Waits for a state of the spool that meets the condition.
    pub fn state(&mut self, what: &str, is: impl Fn(&SpoolState) -> bool) -> SpoolState {
        let end = now() + LONG;
        loop {
            if let Some(at) = self.states.iter().position(&is) {
                return self.states.drain(..=at).next_back().unwrap();
            }
            let left = end.saturating_sub(now());
            match self.told.recv_timeout(left) {
                Ok(Told::State(state)) => self.states.push(state),
                Ok(_) => {}
                Err(_) => panic!("no state with {what}; log: {:#?}", self.said()),
            }
        }
    }

    pub fn said(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn said_of(&self, text: &str) -> usize {
        self.said()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.system.stop();
        let _ = self.thread.take().unwrap().join();
    }
}

pub fn now() -> clock::Mono {
    clock::mono()
}

pub fn slow(mut route: Route) -> Route {
    // Settling takes longer than any wait of the test: what comes, came without it.
    route.settle = Duration::from_secs(600);
    route
}

pub fn old(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    age(path, 100);
}
