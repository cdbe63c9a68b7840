//! The event loop on which all UploaderActors live. A handler that never comes back (a bug) holds
//! the whole loop, a dead one takes nothing any more: either is left behind for a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use actix::Arbiter;

/// The event loop on which the UploaderActors live.
pub struct Room {
    /// The loop itself.
    pub arbiter: Arbiter,
    /// Its number: actors of an older one are not spoken to any more.
    pub number: u64,
    /// How often it was asked to turn.
    asked: u64,
    /// The last asking that it came to.
    turned: Arc<AtomicU64>,
}

impl Room {
    /// The first one.
    pub fn new() -> Self {
        Self {
            arbiter: Arbiter::new(),
            number: 1,
            asked: 0,
            turned: Arc::default(),
        }
    }

    /// Asks it to turn; returns the number of this asking. A dead loop never comes to it.
    pub fn ask(&mut self) -> u64 {
        self.asked += 1;
        let (turned, asked) = (Arc::clone(&self.turned), self.asked);
        self.arbiter
            .spawn(async move { turned.store(asked, SeqCst) });
        asked
    }

    /// Whether it has come to that asking.
    pub fn turned(&self, asked: u64) -> bool {
        self.turned.load(SeqCst) >= asked
    }

    /// Leaves it behind and starts a new one.
    pub fn replace(&mut self) {
        *self = Self {
            number: self.number + 1,
            ..Self::new()
        };
    }
}
