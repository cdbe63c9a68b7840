//! The JournalActor (SyncArbiter, one thread): the only one that writes to the journal. Rung, it
//! takes what waits in the queue, many changes in one transaction, and tells whoever waits for
//! them. It decides nothing; what it cannot write it says, and it tries again when it is asked.
//!
//! actix's SyncArbiter makes no new actor where a handler panics: its thread ends, the address is
//! dead. So a panic in the store is caught here: what it was about counts as unwritten, the store
//! is opened anew. One that comes again and again ends the thread; the daemon sees that the queue
//! has no reader any more and passes it outwards.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, Handler, Message, Recipient, SyncArbiter, SyncContext};
use slog::{Logger, error, info, warn};

use crate::clock::{self, Mono};
use crate::failpoint;
use crate::spool::Stamp;
use crate::spool::journal::{Change, Done, Drawer, Entry, Journal, OldName, Store, Unfinished};

/// How often what is older than the history is dropped.
const EXPIRY: Duration = Duration::from_secs(3600);

/// How often a journal that is the writer's alone is opened anew, to be read by others as well.
const SHARING: Duration = Duration::from_secs(60);

/// How long what no worker waits for may ride along with what one does.
const PATIENCE: Duration = Duration::from_millis(5);

/// So many panics without a change written in between are no accident: a new process has to try.
const PANICS: u32 = 3;

/// Something waits in the queue.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Flush;

/// The service ends: what waits is written and the file closed, so that nothing of its log is
/// left. Answers whether all of it stands; whatever comes later is not written.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "bool")]
pub struct Close;

/// What became of changes that the daemon waits for.
#[derive(Message, Debug, Clone, Default)]
#[rtype(result = "()")]
pub struct Journaled {
    /// Their numbers.
    pub tokens: Vec<u64>,
    /// Why they do not stand, if so.
    pub error: Option<String>,
    /// The journal was opened again in mid-life, and may know nothing of what came before.
    pub anew: bool,
}

/// What the journal knows of a route, from its life before: asked when a route is begun.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Recall {
    /// The route's name.
    pub route: Arc<str>,
    /// Who wants to know.
    pub told: Recipient<Recalled>,
}

/// The answer. Not told where there is no room for it, or the journal cannot be read: asked again.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Recalled {
    /// The route's name.
    pub route: Arc<str>,
    /// Files that were not finished.
    pub unfinished: Vec<Unfinished>,
    /// Temp names that are to be taken away once more.
    pub sweeps: Vec<OldName>,
    /// Delivered files that stay in its spool.
    pub kept: Vec<(Arc<str>, Stamp)>,
    /// Where the journal was set aside that knew more of them, if it is lost and not given up.
    pub lost: Option<String>,
    /// The journal's file.
    pub path: PathBuf,
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
    /// None where it has to be opened (again).
    store: Option<Store>,
    /// Panics since a change was written.
    panics: u32,
    closed: bool,
    /// What is wrong with the file, where that cannot be mended.
    damage: Option<String>,
    /// It was opened again, which the daemon is to be told.
    anew: bool,
    rung: Arc<AtomicBool>,
    /// What the daemon's mailbox had no room for; it asks again for what it is not told.
    unsent: Vec<Journaled>,
    failing: bool,
    expire_at: Mono,
    share_at: Mono,
}

impl JournalActor {
    /// Starts the writer of an open store and has `journal` ring it.
    pub fn start(store: Store, path: PathBuf, journal: &Journal, parts: Parts) -> Addr<Self> {
        let rung = Arc::new(AtomicBool::new(false));
        let first = Arc::new(Mutex::new(Some(store)));
        let make = {
            let rung = Arc::clone(&rung);
            move || Self {
                panics: 0,
                closed: false,
                damage: None,
                anew: false,
                store: first.lock().unwrap_or_else(PoisonError::into_inner).take(),
                parts: parts.clone(),
                path: path.clone(),
                rung: Arc::clone(&rung),
                unsent: Vec::new(),
                failing: false,
                expire_at: Mono::ZERO,
                share_at: Mono::ZERO,
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
        if self.closed {
            return Err("it is closed: the service ends".into());
        }
        if self.store.is_none() {
            let opened = match self.damage.take() {
                Some(why) => Store::begin_anew(&self.path, why),
                None => Store::open(&self.path),
            };
            let opened = opened.map_err(|e| e.to_string())?;
            self.anew = true;
            if let Some((place, why)) = opened.set_aside {
                error!(self.parts.log, "the journal cannot be read any more";
                    "path" => self.path.display().to_string(), "error" => why,
                    "set_aside" => place.display().to_string(),
                    "next" => "a new one begins with what is known of files in work; after a \
                        restart routes that keep their files wait for --accept-resend");
            }
            self.store = Some(opened.store);
        }
        self.store.as_mut().ok_or_else(|| "it is not open".into())
    }

    fn write(&mut self, batch: &[Entry]) -> Result<(), String> {
        if self
            .store
            .as_ref()
            .is_some_and(|store| !store.is_in_place())
        {
            self.store = None;
            error!(self.parts.log, "the journal's file was taken away";
                "path" => self.path.display().to_string(),
                "next" => "another one is opened or made, with what is known of files in work; \
                    do not touch it while the service runs");
        }
        let changes = batch.iter().map(|entry| &entry.change);
        let written = self.store()?.apply(changes);
        written.map_err(|error| {
            if is_damage(&error) {
                // No later try can help: it is set aside.
                self.store = None;
                self.damage = Some(error.to_string());
            }
            error.to_string()
        })
    }

    /// The same, and whatever it does the thread lives on; but for a panic that comes every time.
    fn try_write(&mut self, batch: &[Entry]) -> Result<(), String> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            failpoint::at("commit-due");
            let written = self.write(batch);
            failpoint::at("committed");
            written
        }));
        match written {
            Ok(written) => {
                if written.is_ok() {
                    self.panics = 0;
                    self.share();
                }
                written
            }
            Err(panic) => {
                self.panics += 1;
                if self.panics >= PANICS {
                    error!(self.parts.log, "the journal's writer panics every time";
                        "next" => "its thread ends, and with it the process, to be restarted");
                    resume_unwind(panic);
                }
                // Who knows in which state it was left.
                self.store = None;
                error!(self.parts.log, "the journal's writer panicked";
                    "next" => "the journal is opened anew and what was not written tried again");
                Err("its writer panicked".into())
            }
        }
    }

    /// A journal that was opened on a full volume can be read by nobody else; what was written just
    /// now says that there may be room.
    fn share(&mut self) {
        let now = clock::mono();
        if now < self.share_at || !self.store.as_ref().is_some_and(Store::is_alone) {
            return;
        }
        self.share_at = now + SHARING;
        let shared = catch_unwind(AssertUnwindSafe(|| {
            self.store.take().and_then(Store::share)
        }));
        // Where that failed the next write opens it.
        self.store = shared.unwrap_or_default();
    }

    /// Says once that it fails, and once that it does no more.
    fn say(&mut self, error: Option<&str>) {
        if self.closed {
            return;
        }
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
        self.tell_unsent();
    }

    fn tell_unsent(&mut self) {
        for notice in std::mem::take(&mut self.unsent) {
            if let Err(actix::prelude::SendError::Full(notice)) = self.parts.told.try_send(notice) {
                self.unsent.push(notice);
            }
        }
    }

    /// Drops one step's worth of what is over its time; rings itself while there is more.
    fn expire(&mut self, ctx: &<Self as Actor>::Context) {
        let now = clock::mono();
        if now < self.expire_at || self.store.is_none() {
            return;
        }
        let before = clock::unix() - self.parts.history.as_secs_f64();
        let more = catch_unwind(AssertUnwindSafe(|| {
            self.store()?.expire(before).map_err(|e| e.to_string())
        }));
        match more {
            Ok(Ok(true)) => {
                if !self.rung.swap(true, SeqCst) && ctx.address().try_send(Flush).is_err() {
                    self.rung.store(false, SeqCst);
                }
                return;
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                warn!(self.parts.log, "old records cannot be dropped"; "error" => error,
                    "next" => "tried again in an hour");
            }
            Err(_) => self.store = None,
        }
        self.expire_at = now + EXPIRY;
    }
}

impl Actor for JournalActor {
    type Context = SyncContext<Self>;
}

impl JournalActor {
    /// Writes all that waits; false if some of it could not be written.
    fn empty_queue(&mut self, patience: Duration) -> bool {
        let mut all = true;
        loop {
            let batch = self.parts.drawer.gather(patience);
            if batch.is_empty() {
                return all;
            }
            let error = self.try_write(&batch).err();
            all &= error.is_none();
            self.say(error.as_deref());
            let mut tokens = Vec::new();
            for Entry { done, .. } in batch {
                match done {
                    Done::Nobody => {}
                    Done::Ticket(ticket) => ticket.settle(error.is_none()),
                    Done::Daemon(token) => tokens.push(token),
                }
            }
            let anew = std::mem::take(&mut self.anew);
            if !tokens.is_empty() || error.is_some() || anew {
                self.tell(Journaled {
                    tokens,
                    error,
                    anew,
                });
            }
        }
    }
}

impl Handler<Recall> for JournalActor {
    type Result = ();

    fn handle(&mut self, Recall { route, told }: Recall, ctx: &mut Self::Context) {
        // What was written before the question belongs to the answer.
        self.handle(Flush, ctx);
        let read = self.store().and_then(|store| {
            let unfinished = store.unfinished().map_err(|e| e.to_string())?;
            let kept = store.kept().map_err(|e| e.to_string())?;
            let lost = store.lost().map_err(|e| e.to_string())?;
            let sweeps = store.sweeps().map_err(|e| e.to_string())?;
            Ok((unfinished, kept, lost, sweeps))
        });
        match read {
            Ok((unfinished, kept, lost, sweeps)) => {
                let unfinished = unfinished.into_iter().filter(|u| u.of.route == route);
                let kept = kept.into_iter().filter(|(of, _)| of.route == route);
                let sweeps = sweeps.into_iter().filter(|old| old.route == route);
                // The daemon asks again for what it is not told.
                let _ = told.try_send(Recalled {
                    unfinished: unfinished.collect(),
                    sweeps: sweeps.collect(),
                    kept: kept.map(|(of, stamp)| (of.path, stamp)).collect(),
                    lost,
                    path: self.path.clone(),
                    route,
                });
            }
            Err(error) => warn!(self.parts.log, "the journal cannot be read"; "error" => error,
                "route" => &*route, "next" => "tried again; the route begins after that"),
        }
    }
}

impl Handler<Flush> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        // Before the queue is read: what comes later rings again.
        self.rung.store(false, SeqCst);
        self.tell_unsent();
        self.empty_queue(PATIENCE);
        self.expire(ctx);
    }
}

impl Handler<Close> for JournalActor {
    type Result = bool;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> bool {
        let all = self.empty_queue(Duration::ZERO);
        self.closed = true;
        // Closing brings the log home and takes its files away.
        let closed = self.store.take().is_none_or(Store::close);
        all && closed
    }
}

/// Whether the file itself is at fault, and no later try can help.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
}

/// Asks whether the journal can be written (again).
pub fn probe(journal: &Journal, token: u64) -> bool {
    journal.put(Change::Probe, Done::Daemon(token))
}
