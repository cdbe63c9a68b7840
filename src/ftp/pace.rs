//! The pace of one transfer under its route's rate limit: bytes are reserved in the route's bucket,
//! which all its uploaders share, before they are handed to the kernel. Waiting for the bucket is
//! healthy: it is answered for as long as the peer takes what it was given.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Trouble;
use crate::clock;
use crate::core::bucket::Bucket;
use crate::pulse::WorkerHandle;
use crate::sys::fence::Woken;
use crate::sys::socket;

/// Bounds of the pauses between two looks at the send queue: no event tells that it shrinks.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(100);

/// A route's rate limit, shared by its uploaders; without one everything may go at once.
#[derive(Clone, Default)]
pub struct Limit(Arc<Mutex<Option<(u64, Bucket)>>>);

impl Limit {
    /// So many bytes a second, or any number.
    pub fn new(rate: Option<u64>) -> Self {
        let limit = Self::default();
        limit.set(rate);
        limit
    }

    /// The same from now on, for transfers under way too.
    pub fn set(&self, rate: Option<u64>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.as_ref().map(|(rate, _)| *rate) != rate {
            *inner = rate.map(|rate| (rate, Bucket::new(rate)));
        }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").finish_non_exhaustive()
    }
}

/// What one transfer may send now.
pub(super) struct Pace<'a> {
    limit: &'a Limit,
    /// Bytes that were reserved and are not sent yet.
    allowance: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(limit: &'a Limit) -> Self {
        Self {
            limit,
            allowance: 0,
        }
    }

    /// How many of `want` bytes may be sent now, at least 1 of them; waits until there are some.
    ///
    /// # Errors
    /// The worker was stopped meanwhile.
    pub(super) fn allow(
        &mut self,
        handle: &WorkerHandle,
        socket: &TcpStream,
        want: usize,
    ) -> Result<usize, Trouble> {
        self.allow_over(handle, Some(socket), want)
    }

    /// How many of `want` bytes may be received now. What the peer has sent beyond that waits in
    /// the kernel, and then with the peer.
    ///
    /// # Errors
    /// The worker was stopped meanwhile.
    pub(super) fn allow_receiving(
        &mut self,
        handle: &WorkerHandle,
        want: usize,
    ) -> Result<usize, Trouble> {
        self.allow_over(handle, None, want)
    }

    fn allow_over(
        &mut self,
        handle: &WorkerHandle,
        socket: Option<&TcpStream>,
        want: usize,
    ) -> Result<usize, Trouble> {
        if self.allowance == 0 {
            let (at, in_flight) = {
                let mut inner = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((_, bucket)) = inner.as_mut() else {
                    return Ok(want);
                };
                self.allowance = bucket.piece().min(want as u64);
                let at = bucket.reserve(self.allowance, clock::mono());
                (at, bucket.in_flight())
            };
            wait_until(handle, socket, at, in_flight)?;
        }
        Ok(usize::try_from(self.allowance).map_or(want, |allowance| allowance.min(want)))
    }

    /// So many were sent, or received.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.allowance = self.allowance.saturating_sub(bytes as u64);
    }
}

/// Waits until then, and until the peer has acknowledged so much that only `in_flight` bytes are
/// under way. Awake for Pings and for the end: Pings are answered while the peer has taken all, or
/// more than before, since this loop turns whether the peer lives or not.
fn wait_until(
    handle: &WorkerHandle,
    socket: Option<&TcpStream>,
    at: clock::Mono,
    in_flight: u64,
) -> Result<(), Trouble> {
    let (mut look, mut left) = (LOOK_FIRST, u64::MAX);
    loop {
        let queued = socket.map_or(0, |socket| socket::unacknowledged(socket.as_fd()));
        // First: over a dead descriptor the queue looks empty.
        handle.check()?;
        if queued == 0 || queued < left {
            handle.ack();
            left = queued;
        }
        let early = at.saturating_sub(clock::mono());
        let pause = match early.is_zero() {
            true if queued <= in_flight => return Ok(()),
            true => look,
            false => early,
        };
        match handle.fence.wait(None, Some(pause)) {
            Ok(Woken::Timeout) if early.is_zero() => look = (look * 2).min(LOOK_LAST),
            Ok(_) => {}
            Err(e) => return Err(Trouble::from_io(handle, "waiting for the rate limit", &e)),
        }
    }
}
