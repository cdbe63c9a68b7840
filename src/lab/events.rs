//! What the server tells of itself: an ordered stream of events and counters that follow from it.
//! Every subscriber sees the same order; a subscriber that does not read loses the oldest events
//! (and is told how many), it never holds the server up. Waiting is on condition variables.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::fault::Kind;
use crate::clock::mono;

/// How a data connection ended, as the server saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferEnd {
    /// Cleanly: the client's FIN was read, or all of a download or listing was handed over.
    Eof,
    /// The client reset it.
    Reset,
    /// Another error.
    Error,
    /// The server itself ended it.
    Aborted,
}

/// One thing that happened. Paths begin with `/`, the server's root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// A control connection was accepted.
    SessionOpened { session: u64, peer: SocketAddr },
    /// The password was right.
    LoggedIn { session: u64 },
    /// A command was read (a password is masked); it is executed after this.
    Command {
        session: u64,
        verb: String,
        arg: String,
    },
    /// A fault struck; told before it shows any effect.
    Struck {
        session: u64,
        fault: Kind,
        path: String,
    },
    /// A frozen session goes on.
    Thawed { session: u64 },
    /// A TLS handshake was completed, of the control or a data connection.
    Secured {
        session: u64,
        data: bool,
        resumed: bool,
    },
    /// A data connection was accepted, or made in active mode.
    DataConnected { session: u64 },
    /// A data connection ended after so many bytes of payload. A reset is told at once, although
    /// a frozen session may still read what came before it.
    DataEnded {
        session: u64,
        how: TransferEnd,
        bytes: u64,
    },
    /// A file was opened for an upload: it is visible from now on.
    Storing { session: u64, path: String },
    /// An upload was read to its clean end and its file is closed; `bytes` is the file's size.
    Stored {
        session: u64,
        path: String,
        bytes: u64,
    },
    /// A file was renamed.
    Renamed {
        session: u64,
        from: String,
        to: String,
    },
    /// A file was deleted.
    Deleted { session: u64, path: String },
    /// The session is over, its sockets are closed.
    Ended { session: u64 },
}

impl Event {
    /// The session it belongs to.
    pub fn session(&self) -> u64 {
        match *self {
            Self::SessionOpened { session, .. }
            | Self::LoggedIn { session }
            | Self::Command { session, .. }
            | Self::Struck { session, .. }
            | Self::Thawed { session }
            | Self::Secured { session, .. }
            | Self::DataConnected { session }
            | Self::DataEnded { session, .. }
            | Self::Storing { session, .. }
            | Self::Stored { session, .. }
            | Self::Renamed { session, .. }
            | Self::Deleted { session, .. }
            | Self::Ended { session } => session,
        }
    }
}

/// Counts since the server's start; those ending in `_open`, and `frozen`, are of this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control connections now.
    pub sessions_open: usize,
    /// The most there were at once.
    pub sessions_peak: usize,
    /// Control connections ever.
    pub sessions: u64,
    /// Data connections now.
    pub data_open: usize,
    /// Sessions that a fault holds still now.
    pub frozen: usize,
    /// Successful logins.
    pub logins: u64,
    /// STOR commands read.
    pub stor_count: u64,
    /// Uploads read to their clean end.
    pub stored: u64,
    /// Renames done.
    pub rename_count: u64,
    /// Files deleted.
    pub delete_count: u64,
    /// Data connections that the client reset.
    pub resets: u64,
    /// Data connections that resumed the TLS session of their control connection.
    pub resumed: u64,
    /// Faults that struck.
    pub strikes: u64,
}

impl Counters {
    fn follow(&mut self, event: &Event) {
        match event {
            Event::SessionOpened { .. } => {
                self.sessions += 1;
                self.sessions_open += 1;
                self.sessions_peak = self.sessions_peak.max(self.sessions_open);
            }
            Event::LoggedIn { .. } => self.logins += 1,
            Event::Command { verb, .. } => self.stor_count += u64::from(verb == "STOR"),
            Event::Struck { .. } => self.strikes += 1,
            Event::DataConnected { .. } => self.data_open += 1,
            Event::DataEnded { how, .. } => {
                self.data_open = self.data_open.saturating_sub(1);
                self.resets += u64::from(*how == TransferEnd::Reset);
            }
            Event::Stored { .. } => self.stored += 1,
            Event::Renamed { .. } => self.rename_count += 1,
            Event::Deleted { .. } => self.delete_count += 1,
            Event::Ended { .. } => self.sessions_open = self.sessions_open.saturating_sub(1),
            Event::Secured { data, resumed, .. } => {
                self.resumed += u64::from(*data && *resumed);
            }
            Event::Thawed { .. } | Event::Storing { .. } => {}
        }
    }
}

/// A file makes about 15 events: room for the 4,000 files of a large test nobody reads along.
const EVENTS_MAX: usize = 65_536;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Queue>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    lost: u64,
}

impl Queue {
    fn push(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    subscribers: Vec<Weak<Mailbox>>,
}

/// Where sessions publish.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

impl Hub {
    /// Tells everyone. The lock is held over all mailboxes: that makes the order the same for all.
    pub(super) fn publish(&self, event: Event) {
        let mut state = lock(&self.state);
        state.counters.follow(&event);
        state.subscribers.retain(|subscriber| {
            let Some(mailbox) = subscriber.upgrade() else {
                return false;
            };
            lock(&mailbox.waiting).push(event.clone());
            mailbox.came.notify_all();
            true
        });
        drop(state);
        self.changed.notify_all();
    }

    /// Changes a count that no event carries.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.state).counters);
        self.changed.notify_all();
    }

    pub(super) fn counters(&self) -> Counters {
        lock(&self.state).counters
    }

    pub(super) fn wait_counters(
        &self,
        until: impl Fn(&Counters) -> bool,
        timeout: Duration,
    ) -> Result<Counters, Counters> {
        let end = mono() + timeout;
        let mut state = lock(&self.state);
        loop {
            let counters = state.counters;
            let left = end.saturating_sub(mono());
            if until(&counters) {
                return Ok(counters);
            } else if left.is_zero() {
                return Err(counters);
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn subscribe(&self) -> Subscriber {
        let mailbox = Arc::new(Mailbox::default());
        lock(&self.state).subscribers.push(Arc::downgrade(&mailbox));
        Subscriber {
            mailbox,
            seen: Queue::default(),
        }
    }
}

/// One reader of the event stream, from the moment it was made.
#[derive(Debug)]
pub struct Subscriber {
    mailbox: Arc<Mailbox>,
    /// Events that a `wait_for` has passed over.
    seen: Queue,
}

impl Subscriber {
    /// Moves what has come to `seen`; waits for it, at most `left`. False: nothing came.
    fn fetch(&mut self, left: Duration) -> bool {
        let mut waiting = lock(&self.mailbox.waiting);
        if waiting.events.is_empty() && !left.is_zero() {
            let woken = self.mailbox.came.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let came = !waiting.events.is_empty();
        self.seen.lost += std::mem::take(&mut waiting.lost);
        for event in waiting.events.drain(..) {
            self.seen.push(event);
        }
        came
    }

    /// Takes the first event that `wanted` accepts out of the stream, waiting for it at most
    /// `timeout`. Events that it passes over stay, in order, for later calls.
    pub fn wait_for(
        &mut self,
        wanted: impl Fn(&Event) -> bool,
        timeout: Duration,
    ) -> Option<Event> {
        let end = mono() + timeout;
        let mut from = 0;
        loop {
            if let Some(at) = self.seen.events.iter().skip(from).position(&wanted) {
                return self.seen.events.remove(from + at);
            }
            let passed = self.seen.events.len();
            let left = end.saturating_sub(mono());
            let lost = self.seen.lost;
            let came = self.fetch(left);
            // Losing the oldest moves the rest down.
            let moved = usize::try_from(self.seen.lost - lost).unwrap_or(usize::MAX);
            from = passed.saturating_sub(moved);
            if !came && left.is_zero() {
                return None;
            }
        }
    }

    /// Takes everything that has come so far, in order.
    pub fn drain(&mut self) -> Vec<Event> {
        self.fetch(Duration::ZERO);
        self.seen.events.drain(..).collect()
    }

    /// Events that this reader lost because it did not read.
    pub fn lost(&self) -> u64 {
        self.seen.lost + lock(&self.mailbox.waiting).lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_takes_its_event_and_leaves_the_others_in_order() {
        let hub = Hub::default();
        let mut events = hub.subscribe();
        for session in 1..=3 {
            hub.publish(Event::LoggedIn { session });
        }
        let second = events.wait_for(|e| e.session() == 2, Duration::ZERO);
        assert_eq!(second, Some(Event::LoggedIn { session: 2 }));
        let rest: Vec<_> = events.drain().iter().map(Event::session).collect();
        assert_eq!(rest, [1, 3]);
    }

    #[test]
    fn a_reader_that_sleeps_loses_the_oldest_and_is_told() {
        let hub = Hub::default();
        let mut events = hub.subscribe();
        for session in 0..EVENTS_MAX as u64 + 10 {
            hub.publish(Event::LoggedIn { session });
        }
        assert_eq!(events.lost(), 10);
        let kept = events.drain();
        assert_eq!((kept.len(), kept[0].session()), (EVENTS_MAX, 10));
    }

    #[test]
    fn a_wait_is_woken_by_the_event_of_another_thread() {
        let hub = Hub::default();
        let mut events = hub.subscribe();
        std::thread::scope(|scope| {
            scope.spawn(|| hub.publish(Event::Ended { session: 7 }));
            let found = events.wait_for(|e| e.session() == 7, Duration::from_secs(30));
            assert_eq!(found, Some(Event::Ended { session: 7 }));
        });
    }
}
