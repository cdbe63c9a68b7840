//! The JournalActor (SyncArbiter, one thread): the only one that writes to the journal. Rung, it
//! takes what waits in the queue, many changes in one transaction, and tells whoever waits for
//! them. It decides nothing; what it cannot write it says, and it tries again when it is asked.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, Handler, Message, Recipient, SyncArbiter, SyncContext};
use slog::{Logger, error, info, warn};

use crate::clock::{self, Mono};
use crate::failpoint;
use crate::spool::journal::{Change, Done, Drawer, Entry, Journal, Store};

/// How often deliveries that are older than the history are dropped.
const EXPIRY: Duration = Duration::from_secs(3600);

/// Something waits in the queue.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Flush;

/// What became of changes that the daemon waits for.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Journaled {
    /// Their numbers.
    pub tokens: Vec<u64>,
    /// Why they do not stand, if so.
    pub error: Option<String>,
}

/// What the writer is made of.
#[derive(Clone)]
pub struct Parts {
    /// The queue's end.
    pub drawer: Drawer,
    /// The daemon.
    pub told: Recipient<Journaled>,
    /// How long deliveries are remembered.
    pub history: Duration,
    /// The logger.
    pub log: Logger,
}

/// The actor.
pub struct JournalActor {
    parts: Parts,
    path: PathBuf,
    /// None after it could not be opened again.
    store: Option<Store>,
    rung: Arc<AtomicBool>,
    /// What the daemon's mailbox had no room for; it asks again for what it is not told.
    unsent: Vec<Journaled>,
    failing: bool,
    expire_at: Mono,
}

impl JournalActor {
    /// Starts the writer of an open store and has `journal` ring it.
    pub fn start(store: Store, path: PathBuf, journal: &Journal, parts: Parts) -> Addr<Self> {
        let rung = Arc::new(AtomicBool::new(false));
        let first = Arc::new(Mutex::new(Some(store)));
        let make = {
            let rung = Arc::clone(&rung);
            // Called again only after a panic, which may have left the store in any state.
            move || Self {
                store: first.lock().unwrap_or_else(PoisonError::into_inner).take(),
                parts: parts.clone(),
                path: path.clone(),
                rung: Arc::clone(&rung),
                unsent: Vec::new(),
                failing: false,
                expire_at: Mono::ZERO,
            }
        };
        let addr = SyncArbiter::start(1, make);
        let ringing = addr.clone();
        journal.on_ring(move || {
            // One ring is enough: it empties the queue.
            if !rung.swap(true, SeqCst) && ringing.try_send(Flush).is_err() {
                rung.store(false, SeqCst);
            }
        });
        addr
    }

    fn store(&mut self) -> Result<&mut Store, String> {
        if self.store.is_none() {
            let opened = Store::open(&self.path).map_err(|e| e.to_string())?;
            self.store = Some(opened.store);
        }
        self.store.as_mut().ok_or_else(|| "it is not open".into())
    }

    fn write(&mut self, batch: &[Entry]) -> Result<(), String> {
        let changes = batch.iter().map(|entry| &entry.change);
        let store = self.store()?;
        store.apply(changes).map_err(|e| e.to_string())
    }

    /// Says once that it fails, and once that it does no more.
    fn say(&mut self, error: Option<&str>) {
        match error {
            Some(error) if !self.failing => error!(self.parts.log, "the journal cannot be written";
                "path" => self.path.display().to_string(), "error" => error,
                "next" => "no new work is taken until it can; nothing is lost"),
            None if self.failing => info!(self.parts.log, "the journal can be written again";
                "next" => "work goes on"),
            _ => {}
        }
        self.failing = error.is_some();
    }

    fn tell(&mut self, journaled: Journaled) {
        self.unsent.push(journaled);
        for notice in std::mem::take(&mut self.unsent) {
            if let Err(actix::prelude::SendError::Full(notice)) = self.parts.told.try_send(notice) {
                self.unsent.push(notice);
            }
        }
    }

    fn expire(&mut self) {
        let now = clock::mono();
        if now < self.expire_at {
            return;
        }
        self.expire_at = now + EXPIRY;
        let before = clock::unix() - self.parts.history.as_secs_f64();
        let expired = self.store().map(|store| store.expire(before));
        if let Ok(Err(error)) = expired {
            warn!(self.parts.log, "old deliveries cannot be dropped"; "error" => error.to_string(),
                "next" => "tried again in an hour");
        }
    }
}

impl Actor for JournalActor {
    type Context = SyncContext<Self>;
}

impl Handler<Flush> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        // Before the queue is read: what comes later rings again.
        self.rung.store(false, SeqCst);
        loop {
            let batch = self.parts.drawer.draw();
            if batch.is_empty() {
                break;
            }
            failpoint::at("commit-due");
            let error = self.write(&batch).err();
            failpoint::at("committed");
            self.say(error.as_deref());
            let mut tokens = Vec::new();
            for Entry { done, .. } in batch {
                match done {
                    Done::Nobody => {}
                    Done::Ticket(ticket) => ticket.settle(error.is_none()),
                    Done::Daemon(token) => tokens.push(token),
                }
            }
            if !tokens.is_empty() || error.is_some() {
                self.tell(Journaled { tokens, error });
            }
        }
        self.expire();
    }
}

/// Asks whether the journal can be written (again).
pub fn probe(journal: &Journal, token: u64) -> bool {
    journal.put(Change::Probe, Done::Daemon(token))
}
