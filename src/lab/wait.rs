//! Waiting: every wait of the lab is one `poll` that the server's stop latch can end. A latch is
//! an eventfd that is written once and then stays readable for all who hold it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::fault::Until;
use crate::clock::{Mono, mono};

/// Closed until it is opened, open for ever after.
#[derive(Debug)]
pub(super) struct Latch(OwnedFd);

impl Latch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(super) fn open(&self) {
        // Fails only when the counter would overflow: then it is open already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn watch(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
    }

    pub(super) fn is_open(&self) -> bool {
        poll(&mut [self.watch()], Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

/// The latch of the next thaw, made when a fault first asks for it.
#[derive(Debug, Default)]
pub(super) struct Thaw(Mutex<Option<Arc<Latch>>>);

impl Thaw {
    fn next(&self) -> io::Result<Arc<Latch>> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_none() {
            *next = Some(Arc::new(Latch::new()?));
        }
        next.clone()
            .ok_or_else(|| io::Error::other("the thaw latch is gone"))
    }

    /// Ends every strike that waits for a thaw.
    pub(super) fn thaw(&self) {
        if let Some(latch) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            latch.open();
        }
    }
}

/// The running time of one strike.
#[derive(Debug, Clone)]
pub(super) enum Term {
    Thaw(Arc<Latch>),
    At(Mono),
    Forever,
}

impl Term {
    pub(super) fn start(until: Until, thaw: &Thaw) -> io::Result<Self> {
        Ok(match until {
            Until::Thaw => Self::Thaw(thaw.next()?),
            Until::After(time) => Self::At(mono() + time),
            Until::Forever => Self::Forever,
        })
    }

    pub(super) fn over(&self) -> bool {
        match self {
            Self::Thaw(latch) => latch.is_open(),
            Self::At(end) => mono() >= *end,
            Self::Forever => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self {
            Self::At(end) => Some(*end),
            Self::Thaw(_) | Self::Forever => None,
        }
    }

    pub(super) fn watch(&self) -> Option<PollFd<'_>> {
        match self {
            Self::Thaw(latch) => Some(latch.watch()),
            Self::At(_) | Self::Forever => None,
        }
    }
}

/// Waits until one of `fds` is ready (true) or `deadline` is reached (false).
pub(super) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Mono>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|end| timespec(end.saturating_sub(mono())));
        match poll(fds, left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    // A wait of more than a century is as good as one.
    Timespec::try_from(time).unwrap_or(Timespec {
        tv_sec: 1 << 32,
        tv_nsec: 0,
    })
}

/// Whether poll found the peer's end of a connection: its FIN, a reset, or an error.
pub(super) fn ended(found: PollFlags) -> bool {
    found.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Whether poll found the connection reset (a FIN alone is no reset).
pub(super) fn reset(found: PollFlags) -> bool {
    found.intersects(PollFlags::HUP | PollFlags::ERR)
}
