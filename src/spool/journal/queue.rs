//! The way into the journal: a bounded queue that every thread may write to and one thread empties,
//! many changes in one transaction. Whoever must not go on before its change stands waits on a
//! ticket, awake for the fence; everybody else goes on at once.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::Change;
use crate::clock;

/// Changes that may wait: several for each slot and file that can be under way at once. A full
/// queue is a journal that does not keep up: who must wait is refused, who need not is too.
const QUEUE: usize = 16_384;
/// Changes in one transaction.
pub const BATCH: usize = 1024;

/// Who is told when a change stands, or cannot be written.
#[derive(Clone)]
pub enum Done {
    /// Nobody: the change only narrows what is in doubt.
    Nobody,
    /// A thread that waits.
    Ticket(Arc<Ticket>),
    /// The daemon, by a number of its own.
    Daemon(u64),
}

/// One wait for one change.
pub struct Ticket {
    state: AtomicU8,
    wake: Box<dyn Fn() + Send + Sync>,
}

const WAITS: u8 = 0;
const STANDS: u8 = 1;
const REFUSED: u8 = 2;

impl Ticket {
    /// A ticket whose holder is woken by `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(WAITS),
            wake: Box::new(wake),
        })
    }

    /// Whether the change stands; none while it is not known.
    pub fn result(&self) -> Option<bool> {
        match self.state.load(SeqCst) {
            WAITS => None,
            state => Some(state == STANDS),
        }
    }

    /// Tells the holder.
    pub fn settle(&self, stands: bool) {
        self.state
            .store(if stands { STANDS } else { REFUSED }, SeqCst);
        (self.wake)();
    }
}

/// A change on its way.
pub struct Entry {
    /// What changes.
    pub change: Change,
    /// Who is told.
    pub done: Done,
}

/// The writers' side.
#[derive(Clone, Default)]
pub struct Journal {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    queue: Sender<Entry>,
    /// Lives as long as the drawer does.
    drawer: Weak<()>,
    ring: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// The side of the one thread that writes.
#[derive(Clone)]
pub struct Drawer {
    queue: Receiver<Entry>,
    _alive: Arc<()>,
}

/// A queue: its writers' side and its drawer.
pub fn journal() -> (Journal, Drawer) {
    let (queue, drawn) = bounded(QUEUE);
    let alive = Arc::new(());
    let inner = Inner {
        queue,
        drawer: Arc::downgrade(&alive),
        ring: OnceLock::new(),
    };
    let journal = Journal {
        inner: Some(Arc::new(inner)),
    };
    let drawer = Drawer {
        queue: drawn,
        _alive: alive,
    };
    (journal, drawer)
}

impl Journal {
    /// No journal: every change stands at once. For commands that send one file and end.
    pub fn none() -> Self {
        Self::default()
    }

    /// What is rung when there is something to write; set once, when the writer stands, and rung
    /// at once for whatever came before.
    pub fn on_ring(&self, ring: impl Fn() + Send + Sync + 'static) {
        if let Some(inner) = &self.inner {
            // A second one has nothing to add: the first still rings.
            let _ = inner.ring.set(Box::new(ring));
        }
        self.ring();
    }

    /// Puts a change in; false if it cannot be written (the writer is gone, or far behind).
    pub fn put(&self, change: Change, done: Done) -> bool {
        let Some(inner) = &self.inner else {
            if let Done::Ticket(ticket) = done {
                ticket.settle(true);
            }
            return true;
        };
        match inner.queue.try_send(Entry { change, done }) {
            Ok(()) => {
                self.ring();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Rings the writer.
    pub fn ring(&self) {
        if let Some(ring) = self.inner.as_ref().and_then(|i| i.ring.get()) {
            ring();
        }
    }

    /// Whether the one thread that writes has ended: nothing put in will ever stand.
    pub fn is_lost(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_some_and(|inner| inner.drawer.strong_count() == 0)
    }

    /// Whether there is one.
    pub fn is_kept(&self) -> bool {
        self.inner.is_some()
    }
}

impl Drawer {
    /// The next batch, oldest first; empty when nothing waits.
    pub fn draw(&self) -> Vec<Entry> {
        self.queue.try_iter().take(BATCH).collect()
    }

    /// The same; what nobody waits on his feet for is held back for so long, to be written
    /// together with what somebody does: each transaction is one wait for the disk.
    pub fn gather(&self, patience: Duration) -> Vec<Entry> {
        let mut batch = self.draw();
        let until = clock::mono() + patience;
        let urgent = |entry: &Entry| matches!(entry.done, Done::Ticket(_));
        while (1..BATCH).contains(&batch.len()) && !batch.iter().any(urgent) {
            let left = until.saturating_sub(clock::mono());
            match self.queue.recv_timeout(left) {
                Ok(entry) => batch.push(entry),
                Err(_) => break,
            }
        }
        let room = BATCH.saturating_sub(batch.len());
        batch.extend(self.queue.try_iter().take(room));
        batch
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_drawn_in_their_order_and_tickets_are_settled() {
        let (journal, drawer) = journal();
        let ticket = Ticket::new(|| {});
        assert!(journal.put(Change::Probe, Done::Daemon(7)));
        assert!(journal.put(Change::Probe, Done::Ticket(Arc::clone(&ticket))));
        let batch = drawer.draw();
        assert_eq!(batch.len(), 2);
        assert!(matches!(batch[0].done, Done::Daemon(7)));
        assert_eq!(ticket.result(), None);
        for entry in batch {
            if let Done::Ticket(ticket) = entry.done {
                ticket.settle(false);
            }
        }
        assert_eq!(ticket.result(), Some(false));
        assert!(drawer.draw().is_empty());
    }

    #[test]
    fn what_nobody_waits_for_goes_with_what_somebody_does() {
        let (journal, drawer) = journal();
        assert!(drawer.gather(Duration::from_secs(60)).is_empty());
        assert!(journal.put(Change::Probe, Done::Daemon(1)));
        assert_eq!(drawer.gather(Duration::ZERO).len(), 1);
        assert!(journal.put(Change::Probe, Done::Nobody));
        let late = journal.clone();
        let put = std::thread::spawn(move || {
            late.put(Change::Probe, Done::Daemon(2));
            late.put(Change::Probe, Done::Ticket(Ticket::new(|| {})));
        });
        let batch = drawer.gather(Duration::from_secs(600));
        assert!(matches!(
            batch.iter().map(|entry| &entry.done).collect::<Vec<_>>()[..],
            [Done::Nobody, Done::Daemon(2), Done::Ticket(_)]
        ));
        put.join().unwrap();
    }

    #[test]
    fn what_came_before_the_writer_is_rung_for() {
        let (journal, drawer) = journal();
        assert!(journal.put(Change::Probe, Done::Nobody));
        let rung = Arc::new(AtomicU8::new(0));
        let rings = Arc::clone(&rung);
        journal.on_ring(move || {
            rings.fetch_add(1, SeqCst);
        });
        assert_eq!(rung.load(SeqCst), 1);
        assert_eq!(drawer.draw().len(), 1);
    }

    #[test]
    fn without_a_journal_everything_stands_and_without_a_writer_nothing_does() {
        let ticket = Ticket::new(|| {});
        assert!(Journal::none().put(Change::Probe, Done::Ticket(Arc::clone(&ticket))));
        assert_eq!(ticket.result(), Some(true));
        let (journal, drawer) = journal();
        assert!(!journal.is_lost());
        drop(drawer);
        assert!(!journal.put(Change::Probe, Done::Nobody));
        assert!(journal.is_lost() && !Journal::none().is_lost());
    }
}
