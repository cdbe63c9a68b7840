//! Replies on the control connection, whole or spoiled: dripping, endless, garbage. A client that
//! is gone is no error here: a real server that was stopped goes on executing what it holds.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::data::DataConn;
use super::server::Shared;
use super::session::{End, Flow, Session};
use super::wait::{Term, ended, wait};
use crate::clock::{Mono, mono};

/// How the next reply is delivered.
pub(super) enum Spoil {
    Drip { every: Duration, term: Term },
    Endless { term: Term },
}

/// Lines of an endless reply come at this distance: enough to keep a naive client busy for ever,
/// too few to cost the machine anything.
const ENDLESS_PAUSE: Duration = Duration::from_millis(50);

/// Waits `time`; true when the term is over first. Ends when the peer is gone, if it is watched.
pub(super) fn pause(
    shared: &Shared,
    peer: Option<PollFd<'_>>,
    time: Duration,
    term: &Term,
) -> Flow<bool> {
    let end = mono() + time;
    let first = term.deadline().map_or(end, |term| term.min(end));
    let watches_peer = peer.is_some();
    let mut fds = vec![shared.stop.watch()];
    fds.extend(peer);
    fds.extend(term.watch());
    wait(&mut fds, Some(first))?;
    let gone = watches_peer && ended(fds[1].revents());
    if shared.stop.is_open() {
        Err(End::Stopped)
    } else if gone {
        Err(End::Gone)
    } else {
        Ok(term.over())
    }
}

/// No code, control characters, an escape sequence, bytes that are no UTF-8.
pub(super) const GARBAGE: &[u8] = b"\x1b[31m\x07\x00what is \xff\xfe this\x80?\r\n";

impl Session {
    /// Sends a reply of one line, in the manner that a fault has laid on it.
    pub(super) fn reply(&mut self, code: u16, text: &str) -> Flow {
        self.reply_lines(code, &[text.as_bytes().to_vec()])
    }

    /// The same with several lines; the code comes before the first and the last.
    pub(super) fn reply_lines(&mut self, code: u16, lines: &[Vec<u8>]) -> Flow {
        let bytes = self.shared.character.reply(code, lines);
        match self.spoil.take() {
            None => self.send(&bytes),
            Some(Spoil::Drip { every, term }) => self.drip(&bytes, every, &term),
            Some(Spoil::Endless { term }) => {
                self.endless(code, &term)?;
                self.send(&bytes)
            }
        }
    }

    /// Refuses a command; after a 421 the session ends.
    pub(super) fn refuse(&mut self, code: u16) -> Flow {
        let text = match code {
            421 => "Closing the control connection.",
            450 => "The file is busy.",
            452 => "Insufficient storage space.",
            500 | 502 => "Command not implemented.",
            550 => "Permission denied.",
            552 => "Quota exceeded.",
            553 => "File name not allowed.",
            _ => "No.",
        };
        self.reply(code, text)?;
        if code == 421 { Err(End::Quit) } else { Ok(()) }
    }

    pub(super) fn garbage(&mut self) -> Flow {
        self.send(GARBAGE)
    }

    /// Waits between two pieces of a reply; true when the term is over.
    fn pause(&self, time: Duration, term: &Term) -> Flow<bool> {
        if self.mute {
            return Err(End::Gone);
        }
        let client = PollFd::new(&self.control, PollFlags::RDHUP);
        pause(&self.shared, Some(client), time, term)
    }

    fn drip(&mut self, line: &[u8], every: Duration, term: &Term) -> Flow {
        for (i, byte) in line.iter().enumerate() {
            self.send(&[*byte])?;
            if self.pause(every, term)? {
                return self.send(&line[i + 1..]);
            }
        }
        Ok(())
    }

    fn endless(&mut self, code: u16, term: &Term) -> Flow {
        loop {
            self.send(format!("{code}-One moment, there is more to say.\r\n").as_bytes())?;
            if self.pause(ENDLESS_PAUSE, term)? {
                return Ok(());
            }
        }
    }

    /// Holds the session still until the term is over: nothing is read from any socket, though
    /// a reset of the data connection is seen. Without an end it lets go when the client has
    /// closed the control connection.
    pub(super) fn freeze(&mut self, term: &Term, data: Option<&mut DataConn>) -> Flow {
        self.freeze_at_most(term, None, data)
    }

    /// The same; without an end of its own it also lets go at `bound`.
    pub(super) fn freeze_at_most(
        &mut self,
        term: &Term,
        bound: Option<Mono>,
        mut data: Option<&mut DataConn>,
    ) -> Flow {
        self.shared.hub.count(|counters| counters.frozen += 1);
        let outcome = self.frozen(term, bound, &mut data);
        self.shared.hub.count(|counters| counters.frozen -= 1);
        match outcome {
            Ok(()) => self.publish_thawed(),
            Err(_) => {
                if let Some(data) = data {
                    data.discard();
                }
            }
        }
        outcome
    }

    fn frozen(&self, term: &Term, bound: Option<Mono>, data: &mut Option<&mut DataConn>) -> Flow {
        let lets_go = matches!(term, Term::Forever);
        let bound = bound.filter(|_| lets_go);
        loop {
            let mut fds = vec![self.shared.stop.watch()];
            if lets_go {
                fds.push(PollFd::new(&self.control, PollFlags::RDHUP));
            }
            fds.extend(term.watch());
            let watched = data.as_ref().and_then(|data| data.watch());
            let watches_data = watched.is_some();
            fds.extend(watched);
            wait(&mut fds, term.deadline().or(bound))?;
            let gone = lets_go && ended(fds[1].revents()) || bound.is_some_and(|end| mono() >= end);
            let found = fds.last().map_or(PollFlags::empty(), PollFd::revents);
            drop(fds);
            if let (true, Some(data)) = (watches_data, data.as_mut()) {
                data.note(found);
            }
            if self.shared.stop.is_open() {
                return Err(End::Stopped);
            } else if gone {
                return Err(End::Gone);
            } else if term.over() {
                return Ok(());
            }
        }
    }

    /// Sends bytes. Once the client is gone they go nowhere, which is no error.
    pub(super) fn send(&mut self, mut rest: &[u8]) -> Flow {
        while !self.mute {
            let sent = if rest.is_empty() {
                self.control.flush().map(|()| None)
            } else {
                self.control.write(rest).map(Some)
            };
            match sent {
                Ok(None) => break,
                Ok(Some(n)) => rest = &rest[n..],
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.wait_writable()?,
                    _ => self.mute = true,
                },
            }
        }
        Ok(())
    }

    fn wait_writable(&mut self) -> Flow {
        let control = PollFd::new(&self.control, PollFlags::OUT);
        wait(&mut [self.shared.stop.watch(), control], None)?;
        if self.shared.stop.is_open() {
            Err(End::Stopped)
        } else {
            Ok(())
        }
    }
}
