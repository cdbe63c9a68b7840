//! Wedges of the service's own parts: what happens on the thread of the worker (or of its look-up)
//! that passes the point, until the wedge is let go. None of them can be ended from outside.

use std::io::{PipeWriter, Read};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::matrix::Inner;
use crate::pulse::{Point, Sabotage};

/// A wedge that is armed; it is let go when this is dropped.
pub struct Armed<'l> {
    struck: Receiver<()>,
    over: Arc<AtomicBool>,
    _pipe: Option<PipeWriter>,
    _lock: Option<MutexGuard<'l, ()>>,
}

impl Armed<'_> {
    /// Told when it strikes.
    pub fn struck(&self) -> &Receiver<()> {
        &self.struck
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

/// Arms a wedge for the next worker of `route` that comes to its point. `lock` is what a locked
/// worker waits for; it is held meanwhile.
///
/// # Errors
/// No pipe can be had.
pub fn arm<'l>(
    inner: Inner,
    route: &str,
    sabotage: &Sabotage,
    lock: &'l Arc<Mutex<()>>,
) -> std::io::Result<Armed<'l>> {
    // It strikes once.
    let (tell, struck) = sync_channel(1);
    let over = Arc::new(AtomicBool::new(false));
    let mut armed = Armed {
        struck,
        over: Arc::clone(&over),
        _pipe: None,
        _lock: None,
    };
    match inner {
        Inner::Disk | Inner::Resolver => {
            let (reader, writer) = std::io::pipe()?;
            armed._pipe = Some(writer);
            let point = match inner {
                Inner::Resolver => Point::Resolver,
                _ => Point::Source,
            };
            sabotage.arm_worker(point, route, move |_| {
                let _ = tell.try_send(());
                // Ends when the writer is closed; a signal does not end it, as with a hung disk.
                let _ = (&reader).read_to_end(&mut Vec::new());
            });
        }
        Inner::Spin => sabotage.arm_worker(Point::Transfer, route, move |_| {
            let _ = tell.try_send(());
            while !over.load(SeqCst) {
                std::hint::spin_loop();
            }
        }),
        Inner::Lock => {
            armed._lock = Some(lock.lock().unwrap_or_else(PoisonError::into_inner));
            let lock = Arc::clone(lock);
            sabotage.arm_worker(Point::Transfer, route, move |_| {
                let _ = tell.try_send(());
                drop(lock.lock());
            });
        }
    }
    Ok(armed)
}
