//! One FTP session: connected, logged in, binary, in the route's remote folder; kept between
//! files and dropped at the first doubt (after a timeout the replies are off by one).

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use slog::Logger;
use suppaftp::types::Response;
use suppaftp::{FtpError, Status};
use zeroize::Zeroizing;

use super::hash::Hashing;
use super::passive::Data;
use super::stream::{self, Client, Line};
use super::tls::{Security, Versions};
use super::{Limit, Quirks, Trouble, dial, passive};
use crate::clock;
use crate::config::{Route, Timers};
use crate::core::names::Phase;
use crate::core::timers::Attempts;
use crate::pulse::{Folder, LookUps, WorkerHandle};
use crate::spool::journal::{Change, Journal};
use crate::sys::fence::{Which, Woken};

/// QUIT is a courtesy: its reply is not worth a long wait.
const QUIT_BOUND: Duration = Duration::from_secs(5);

/// What says that a step is done: 250, or the 200 of servers that do not tell the two apart.
pub(super) const DONE: &[Status] = &[Status::RequestedFileActionOk, Status::CommandOk];
/// What says that a folder was made, or tells which one it is.
pub(super) const MADE: &[Status] = &[
    Status::PathCreated,
    Status::RequestedFileActionOk,
    Status::CommandOk,
];

/// What every session of a slot needs.
#[derive(Clone)]
pub struct Setup {
    /// The worker's cell and fence.
    pub handle: Arc<WorkerHandle>,
    /// The route.
    pub route: Arc<Route>,
    /// The bounds.
    pub timers: Timers,
    /// How long the detection of a dead path may take.
    pub detection: Duration,
    /// Where look-ups that cannot end are counted.
    pub look_ups: LookUps,
    /// The route's remote folder.
    pub folder: Folder,
    /// The route's rate limit.
    pub limit: Limit,
    /// What is known of the destination.
    pub quirks: Quirks,
    /// How long a server may still do what an unanswered command said.
    pub hold: Duration,
    /// What has to stand in it before the server is told.
    pub journal: Journal,
    /// The worker's logger.
    pub log: Logger,
}

/// A session that stands.
pub struct Session {
    /// Shared facts.
    pub(super) setup: Setup,
    /// The client.
    pub(super) client: Client,
    /// The way past it to the control connection.
    pub(super) line: Arc<Line>,
    /// The versions of TLS that it offered.
    pub(super) versions: Versions,
    /// The greeting as it came.
    pub(super) greeting: String,
    /// Which TLS the connection has.
    pub(super) agreed: Option<String>,
    /// How the server tells a file's hash, or why it does not; none if it was not asked yet.
    pub(super) hash: Option<Result<Hashing, String>>,
    /// Whether the server was told that names are UTF-8, as far as it wants to be.
    pub(super) spoken_utf8: bool,
    /// How far the current data connection came.
    pub(super) data: Arc<Data>,
    /// Whether the connection is gone although the last step's trouble would spare it.
    pub(super) broken: bool,
    /// The remote folder as the server calls it; empty if it does not tell, none if not asked.
    pub(super) home: Option<String>,
}

impl Session {
    /// Connects, logs in, sets binary, goes to the remote folder (made as needed).
    pub fn open(setup: &Setup) -> Result<Self, Trouble> {
        Self::open_with(setup, Versions::All)
    }

    /// Whether its TLS gives the data connections of another file nothing to be resumed by, as
    /// many servers want it: `renew` it before.
    pub fn is_spent(&self) -> bool {
        self.line.security().is_some_and(Security::is_spent)
    }

    /// Another session in place of a spent one: over TLS 1.2, whose tickets last, if that can be.
    pub fn renew(self) -> Result<Self, Trouble> {
        let (setup, versions) = (self.setup.clone(), self.versions);
        self.quit();
        if versions == Versions::NotOlder {
            return Self::open_with(&setup, versions);
        }
        match Self::open_with(&setup, Versions::Older) {
            Err(Trouble::Lost {
                phase: Phase::Tls, ..
            }) => Self::open_with(&setup, Versions::NotOlder),
            other => other,
        }
    }

    fn open_with(setup: &Setup, versions: Versions) -> Result<Self, Trouble> {
        let mut session = Self::connect_with(setup, versions)?;
        match session.enter_folder() {
            Ok(()) => Ok(session),
            Err(trouble) => {
                session.discard();
                Err(trouble)
            }
        }
    }

    /// Connects, logs in, sets binary; stays in the login folder.
    pub fn connect(setup: &Setup) -> Result<Self, Trouble> {
        Self::connect_with(setup, Versions::All)
    }

    fn connect_with(setup: &Setup, versions: Versions) -> Result<Self, Trouble> {
        let Setup {
            handle,
            route,
            timers,
            ..
        } = setup;
        setup.quirks.refresh(clock::mono());
        let server = &route.server;
        let peers = dial::look_up(
            handle,
            &setup.look_ups,
            &server.host,
            server.port,
            timers.dns,
        )?;
        let attempts = Attempts {
            count: timers.control_connect_attempts,
            timeout: timers.control_connect,
            interval: timers.control_connect_interval,
        };
        let stream = dial::connect(
            handle,
            &setup.log,
            Which::Control,
            &peers,
            attempts,
            setup.detection,
        )?;
        // From here on an error leaves a client behind whose drop must find a dead descriptor.
        let opened = Self::over(setup, stream, versions).and_then(|mut session| {
            match session.greet().and_then(|()| session.log_in()) {
                Ok(()) => Ok(session),
                Err(trouble) => {
                    session.discard();
                    Err(trouble)
                }
            }
        });
        if opened.is_err() {
            handle.fence.abandon(Which::Control);
        }
        opened
    }

    fn over(setup: &Setup, stream: TcpStream, versions: Versions) -> Result<Self, Trouble> {
        let line = Arc::new(Line::default());
        let client = stream::client(stream, &line, setup)
            .map_err(|e| Trouble::from_ftp(&setup.handle, "making a client", e))?;
        let data = Arc::new(Data::default());
        let connector = passive::connector(setup, Arc::clone(&line), Arc::clone(&data));
        let client = client.passive_stream_builder(connector);
        Ok(Self {
            setup: setup.clone(),
            client,
            line,
            versions,
            greeting: String::new(),
            agreed: None,
            hash: None,
            spoken_utf8: false,
            data,
            broken: false,
            home: None,
        })
    }

    fn enter_folder(&mut self) -> Result<(), Trouble> {
        let folder = self.setup.route.server.folder.clone();
        if folder.is_empty() {
            return Ok(());
        }
        match self.change_folder(&folder) {
            // Nothing is made where files are only taken from.
            Err(Trouble::Refused {
                code: 500..=599, ..
            }) if self.setup.route.get.is_none() => {
                self.remade()?;
                self.make_folders(&folder)?;
                self.change_folder(&folder)
            }
            other => other,
        }
    }

    /// Before the remote folder is made anew: what is in doubt there is not answered by the absence
    /// of a temp name any more, in this life or the next.
    fn remade(&mut self) -> Result<(), Trouble> {
        let change = Change::Remade {
            route: self.setup.route.name.as_str().into(),
        };
        let written = self.setup.handle.write(&self.setup.journal, change)?;
        written.map_err(|_| Trouble::Unwritten)?;
        self.setup.folder.remake();
        Ok(())
    }

    /// Goes to a folder.
    pub fn change_folder(&mut self, folder: &str) -> Result<(), Trouble> {
        self.speak_of(folder)?;
        self.command("CWD", folder, DONE).map(drop)
    }

    /// Makes `folder` and its parents. That a folder may exist already is no error; whether it
    /// stands in the end shows at the next use.
    pub fn make_folders(&mut self, folder: &str) -> Result<(), Trouble> {
        let mut path = String::new();
        for part in folder.split('/').filter(|p| !p.is_empty()) {
            if !path.is_empty() || folder.starts_with('/') {
                path.push('/');
            }
            path.push_str(part);
            if part == "." {
                continue;
            }
            match self.command("MKD", &path, MADE) {
                Ok(_)
                | Err(Trouble::Refused {
                    code: 500..=599, ..
                }) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    /// Whether the session can serve the next job.
    pub fn usable(&self) -> bool {
        !self.broken
    }

    /// One command with one reply, in a phase of its own.
    pub(super) fn step<T>(
        &mut self,
        verb: &'static str,
        run: impl FnOnce(&mut Client) -> Result<T, FtpError>,
    ) -> Result<T, Trouble> {
        self.step_in(Phase::Reply, self.setup.timers.reply, verb, run)
    }

    /// A reply without a command.
    pub(super) fn await_reply(
        &mut self,
        verb: &'static str,
        phase: Phase,
        bound: Duration,
        expected: &[Status],
    ) -> Result<Response, Trouble> {
        self.line.say_instead(Zeroizing::default());
        self.step_in(phase, bound, verb, |client| {
            client.custom_command(verb, expected)
        })
    }

    fn step_in<T>(
        &mut self,
        phase: Phase,
        bound: Duration,
        verb: &'static str,
        run: impl FnOnce(&mut Client) -> Result<T, FtpError>,
    ) -> Result<T, Trouble> {
        let handle = Arc::clone(&self.setup.handle);
        handle.begin(phase, Some(bound));
        handle.check()?;
        let result = run(&mut self.client).map_err(|e| Trouble::from_ftp(&handle, verb, e));
        handle.ack();
        match result {
            // A 250 to RNTO that was read means that the file is published, whatever came then;
            // only the session is over.
            Ok(value) if verb == "RNTO" => {
                self.broken |= handle.check().is_err();
                Ok(value)
            }
            Ok(value) => Trouble::unless_stopped(&handle, value),
            other => other,
        }
    }

    /// A command with an argument; answers the status, one of `expected`.
    pub(super) fn command(
        &mut self,
        verb: &'static str,
        argument: &str,
        expected: &[Status],
    ) -> Result<Status, Trouble> {
        let line = format!("{verb} {argument}");
        self.step(verb, |client| client.custom_command(line, expected))
            .map(|r| r.status)
    }

    /// Waits while idle: true when the server said or did something (the session is over), false
    /// when the worker was woken or `time` is over.
    pub fn idle(&self, time: Duration) -> Result<bool, Trouble> {
        let control = self.client.get_ref();
        let fence = &self.setup.handle.fence;
        match fence.wait(Some((control.as_fd(), PollFlags::IN)), Some(time)) {
            Ok(woken) => Ok(woken == Woken::Ready),
            Err(error) => Err(Trouble::from_io(&self.setup.handle, "idle", &error)),
        }
    }

    /// The polite end.
    pub fn quit(mut self) {
        let handle = Arc::clone(&self.setup.handle);
        handle.begin(Phase::Quit, Some(self.setup.timers.reply.min(QUIT_BOUND)));
        // The answer does not matter: the connection goes either way.
        let clean = self.client.quit().is_ok();
        if clean && handle.check().is_ok() {
            self.line.part();
            handle.fence.release(Which::Control);
        } else {
            handle.fence.abandon(Which::Control);
        }
    }

    /// The hard end: nothing is read or sent any more.
    pub fn discard(self) {
        self.setup.handle.fence.abandon(Which::Data);
        self.setup.handle.fence.abandon(Which::Control);
    }
}
