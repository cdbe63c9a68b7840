//! One session: reads a command, lets a fault strike if one holds there, executes, replies. It
//! owns the control connection, plain or TLS, and the session's state. It never reads ahead of what a stopped
//! process would have read, and executes what it has read even if the client is gone by then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustls::ServerConfig;

use super::data::DataConn;
use super::events::Event;
use super::fault::{Kind, Until};
use super::passive::Passive;
use super::paths::VPath;
use super::quirk::Quirk;
use super::reply::Spoil;
use super::server::Shared;
use super::step::Step;
use super::stream::Stream;
use super::wait::{Term, wait};

/// A command line: several times the longest path that Linux takes.
const LINE_MAX: usize = 16 * 1024;

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client is gone.
    Gone,
    /// The session said goodbye.
    Quit,
    /// The server stops.
    Stopped,
}

impl From<io::Error> for End {
    /// A call on its own sockets that fails leaves a session nothing to do.
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A step of a session: its value, or the session's end.
pub(super) type Flow<T = ()> = Result<T, End>;

/// A fault that has struck.
pub(super) struct Strike {
    pub kind: Kind,
    pub term: Term,
}

impl Strike {
    /// One that does not end.
    pub(super) fn for_ever(kind: Kind) -> Self {
        Self {
            kind,
            term: Term::Forever,
        }
    }
}

/// What a fault has left to do at its step.
pub(super) enum Turn {
    /// Nothing: it gave the reply.
    Done,
    /// The step itself, and the fault if it is one of that step alone.
    On(Option<Strike>),
}

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) control: Stream,
    /// What its TLS connections share, where the server speaks TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// PBSZ was said, as PROT wants it.
    pub(super) sized: bool,
    /// PROT P: data connections are TLS.
    pub(super) protected: bool,
    /// Read, not yet a whole line.
    pub(super) inbox: Vec<u8>,
    /// The client no longer takes replies.
    pub(super) mute: bool,
    /// How the next reply is spoiled.
    pub(super) spoil: Option<Spoil>,
    pub(super) user: Option<Vec<u8>>,
    pub(super) logged_in: bool,
    pub(super) cwd: VPath,
    /// From REST, for the next transfer.
    pub(super) restart: u64,
    /// From RNFR, for RNTO.
    pub(super) rename_from: Option<VPath>,
    /// TYPE I.
    pub(super) binary: bool,
    /// From EPSV or PASV.
    pub(super) passive: Option<Passive>,
    /// From EPRT or PORT; there is one data port at a time.
    pub(super) active: Option<SocketAddr>,
    /// A download that is over: closed only when the client has had time to say its part.
    pub(super) done: Option<DataConn>,
    /// A wrong-PASV fault has refused EPSV: the PASV that follows belongs to the same occasion.
    pub(super) wrong_pasv: bool,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, id: u64, control: Stream) -> Self {
        let tls = shared.secure.as_ref().map(|secure| secure.of_session());
        Self {
            shared,
            id,
            control,
            tls,
            sized: false,
            protected: false,
            inbox: Vec::new(),
            mute: false,
            spoil: None,
            user: None,
            logged_in: false,
            cwd: VPath::default(),
            restart: 0,
            rename_from: None,
            binary: false,
            passive: None,
            active: None,
            done: None,
            wrong_pasv: false,
        }
    }

    pub(super) fn run(mut self) {
        let end = self.serve().err();
        if end == Some(End::Gone) {
            self.look_at_unaccepted_data();
        }
    }

    fn serve(&mut self) -> Flow {
        if self.shared.tls().is_some_and(|tls| tls.implicit) {
            self.secure_control()?;
        }
        self.greet()?;
        loop {
            let line = self.read_line()?;
            self.command(&line)?;
        }
    }

    /// A client that gave up before its STOR was executed: how did it leave the data connection?
    fn look_at_unaccepted_data(&mut self) {
        let Some((stream, _)) = self.passive.take().and_then(|passive| passive.waiting()) else {
            return;
        };
        let data = Stream::new(stream).map(|stream| self.data_conn(stream));
        if let Ok(mut data) = data {
            data.discard();
        }
    }

    fn greet(&mut self) -> Flow {
        let open = self.shared.hub.counters().sessions_open;
        let strike = self.strike("", |kind| match kind {
            Kind::Seats { max } => open > *max,
            other => other.step() == Some(Step::Greeting),
        })?;
        match self.carry_out(strike)? {
            Turn::Done => Ok(()),
            Turn::On(Some(_)) => {
                self.reply(421, "Too many sessions, try again later.")?;
                Err(End::Quit)
            }
            Turn::On(None) => {
                if self.shared.character.has(&Quirk::NotReady) {
                    self.reply(120, "Ready in a moment.")?;
                }
                self.reply_lines(220, &self.shared.character.greeting())
            }
        }
    }

    /// Lets the first fault that `can` strike here take the occasion.
    pub(super) fn strike(&self, path: &str, can: impl Fn(&Kind) -> bool) -> Flow<Option<Strike>> {
        let Some(fault) = self.shared.armed.strike(path, can) else {
            return Ok(None);
        };
        self.struck(fault.kind, fault.until, path).map(Some)
    }

    /// Starts the running time of a fault that took its occasion, and tells.
    pub(super) fn struck(&self, kind: Kind, until: Until, path: &str) -> Flow<Strike> {
        // The term first: a thaw that follows the event must find it.
        let term = Term::start(until, &self.shared.thaw)?;
        let path = path.to_owned();
        self.shared.hub.publish(Event::Struck {
            session: self.id,
            fault: kind,
            path,
        });
        Ok(Strike { kind, term })
    }

    pub(super) fn strike_at(&self, step: Step, path: &str) -> Flow<Option<Strike>> {
        self.strike(path, |kind| kind.step() == Some(step))
    }

    /// Carries out the faults that any reply can meet: gives another reply, freezes now, or
    /// spoils the next reply. Those of one step alone are left to it.
    pub(super) fn carry_out(&mut self, strike: Option<Strike>) -> Flow<Turn> {
        let Some(Strike { kind, term }) = strike else {
            return Ok(Turn::On(None));
        };
        match kind {
            Kind::Garbage(_) => {
                self.garbage()?;
                return Ok(Turn::Done);
            }
            Kind::Reply(_, code) => {
                self.refuse(code)?;
                return Ok(Turn::Done);
            }
            Kind::HangUp(_) => return Err(End::Quit),
            Kind::NoReply(_) => self.freeze(&term, None)?,
            // These die with the data connection that is to come.
            Kind::DeadPathAt(Step::Stor | Step::Retr | Step::List) => {
                return Ok(Turn::On(Some(Strike { kind, term })));
            }
            Kind::DeadPathAt(_) => self.lose_path(&term, None)?,
            Kind::Drip { every, .. } => self.spoil = Some(Spoil::Drip { every, term }),
            Kind::Endless(_) => self.spoil = Some(Spoil::Endless { term }),
            _ => return Ok(Turn::On(Some(Strike { kind, term }))),
        }
        Ok(Turn::On(None))
    }

    pub(super) fn publish_thawed(&self) {
        self.shared.hub.publish(Event::Thawed { session: self.id });
    }

    /// The next line without its end.
    fn read_line(&mut self) -> Flow<Vec<u8>> {
        loop {
            if let Some(at) = self.inbox.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.inbox.drain(..=at).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.inbox.len() > LINE_MAX {
                self.reply(500, "Line too long.")?;
                return Err(End::Quit);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Flow {
        let mut buf = [0; 4096];
        match self.control.read(&mut buf) {
            Ok(0) => Err(End::Gone),
            Ok(n) => {
                self.inbox.extend_from_slice(&buf[..n]);
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                io::ErrorKind::WouldBlock => self.wait_readable(),
                _ => Err(End::Gone),
            },
        }
    }

    /// Waits for the client, and meanwhile opens a blocked data port when its fault ends.
    fn wait_readable(&mut self) -> Flow {
        let term = self
            .passive
            .as_ref()
            .and_then(|passive| passive.term.clone());
        let mut fds = vec![self.shared.stop.watch()];
        fds.push(PollFd::new(&self.control, PollFlags::IN));
        fds.extend(term.as_ref().and_then(Term::watch));
        wait(&mut fds, term.as_ref().and_then(Term::deadline))?;
        if self.shared.stop.is_open() {
            return Err(End::Stopped);
        }
        self.unblock_passive()
    }

    /// Opens a blocked data port if its fault is over.
    pub(super) fn unblock_passive(&mut self) -> Flow {
        let over = |passive: &mut Passive| passive.term.as_ref().is_some_and(Term::over);
        if let Some(passive) = self.passive.take_if(over) {
            self.passive = Some(passive.unblock()?);
        }
        Ok(())
    }
}
