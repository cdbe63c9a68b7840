//! A dead path without privileges: a filter on the lab's own sockets makes the kernel drop every
//! segment of these connections that comes in, so nothing is acknowledged and no probe answered.
//! Only a reset comes through. It asks for no answer, so a client cannot tell that it arrived, and
//! a session whose client has given up lets go instead of piling up.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockFilter, SockRef};

use super::data::DataConn;
use super::session::{End, Flow, Session};
use super::wait::{Term, wait};
use crate::clock::mono;
use crate::sys::socket::unacknowledged;

/// A client that goes without a reset is not noticed: after this long its session lets go.
const DEAF_MAX: Duration = Duration::from_secs(3600);

/// A living client acknowledges a reply within 200 ms, the longest that Linux delays it.
const HEARD_MAX: Duration = Duration::from_secs(1);
/// No event tells that a reply was acknowledged.
const HEARD_PAUSE: Duration = Duration::from_millis(2);

/// Classic BPF; the kernel hands it each segment from its TCP header on.
const RESETS_ONLY: [SockFilter; 4] = [
    // Load byte 13, the flags.
    SockFilter::new(0x30, 0, 0, 13),
    // RST set: the next line; else the one after it.
    SockFilter::new(0x45, 0, 1, 0x04),
    // Keep all of it.
    SockFilter::new(0x06, 0, 0, u32::MAX),
    // Keep nothing.
    SockFilter::new(0x06, 0, 0, 0),
];

impl Session {
    /// Lets the path die, and freezes the session over it.
    pub(super) fn lose_path(&mut self, term: &Term, data: Option<&mut DataConn>) -> Flow {
        self.deafen(data.as_deref())?;
        self.freeze_deaf(term, data)
    }

    /// Lets the path die.
    pub(super) fn deafen(&self, data: Option<&DataConn>) -> Flow {
        // What a deaf socket has unacknowledged it sends again and again, and that gets out.
        let end = mono() + HEARD_MAX;
        while unacknowledged(self.control.as_fd()) > 0 && mono() < end {
            wait(&mut [self.shared.stop.watch()], Some(mono() + HEARD_PAUSE))?;
            if self.shared.stop.is_open() {
                return Err(End::Stopped);
            }
        }
        self.each_socket(data, |socket| socket.attach_filter(&RESETS_ONLY))?;
        Ok(())
    }

    /// Freezes the session over its dead path. When the term is over the path is there again; a
    /// session that ends instead does so by resets that its client can see.
    pub(super) fn freeze_deaf(&mut self, term: &Term, mut data: Option<&mut DataConn>) -> Flow {
        let bound = Some(mono() + DEAF_MAX);
        let outcome = self.freeze_at_most(term, bound, data.as_deref_mut());
        self.each_socket(data.as_deref(), |socket| {
            socket.detach_filter()?;
            match outcome {
                Ok(()) => Ok(()),
                // Lingering for no time makes the close a reset.
                Err(_) => socket.set_linger(Some(Duration::ZERO)),
            }
        })?;
        outcome
    }

    fn each_socket(
        &self,
        data: Option<&DataConn>,
        act: impl Fn(&SockRef<'_>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        act(&SockRef::from(&self.control))?;
        data.map_or(Ok(()), |data| act(&data.socket()))
    }
}
