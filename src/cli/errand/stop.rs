//! The signals of a one-shot command: the first one asks it to leave in order, the second one ends
//! the process at once (128 + n), whatever the rest of it waits for.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cli::signals::Signals;

/// Whether a signal came; its clones are one.
#[derive(Clone)]
pub struct Stop(Arc<Inner>);

struct Inner {
    /// Its number; 0 for none.
    number: AtomicI32,
    /// Guards nothing: whoever waits for a signal waits on it.
    lock: Mutex<()>,
    rung: Condvar,
}

impl Stop {
    /// From here on no signal ends the process by itself.
    ///
    /// # Errors
    /// The system takes no handler, or gives no thread.
    pub fn listen() -> io::Result<Self> {
        let stop = Self(Arc::new(Inner {
            number: AtomicI32::new(0),
            lock: Mutex::new(()),
            rung: Condvar::new(),
        }));
        let inner = Arc::clone(&stop.0);
        let mut asked = false;
        Signals::listen_apart(move |number| {
            if asked {
                std::process::exit(128 + number);
            }
            asked = true;
            inner.ring(number);
        })?;
        Ok(stop)
    }

    /// The number of the signal that came.
    pub fn came(&self) -> Option<i32> {
        Some(self.0.number.load(SeqCst)).filter(|number| *number != 0)
    }

    /// Waits for a signal, for that long at most.
    pub fn wait(&self, time: Duration) {
        let lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.came().is_none() {
            // Why it returns does not matter: whoever waits looks again.
            drop(self.0.rung.wait_timeout(lock, time));
        }
    }
}

impl Inner {
    fn ring(&self, number: i32) {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.number.store(number, SeqCst);
        self.rung.notify_all();
    }
}
