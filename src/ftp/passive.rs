//! Data connections in passive mode: by EPSV (RFC 2428), by PASV where the server has shown that it
//! takes no EPSV or names ports by it that nobody can connect to, as behind a NAT that does not know
//! the command. Which one is a matter of the destination, found out once.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use slog::info;
use suppaftp::types::Mode;
use suppaftp::{FtpError, FtpResult};

use super::session::Setup;
use super::stream::Line;
use super::{Quirk, Session, Trouble, active, dial};
use crate::core::names::Phase;
use crate::core::timers::Attempts;
use crate::log::escape;
use crate::sys::fence::Which;

/// How far the current data connection came; written inside suppaftp, on the worker's thread.
#[derive(Debug, Default)]
pub(super) struct Data {
    begun: AtomicBool,
    failed: AtomicBool,
    once: AtomicBool,
}

impl Data {
    /// Whether it was begun: what is refused before that is the passive command.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(SeqCst)
    }

    fn anew(&self, once: bool) {
        self.begun.store(false, SeqCst);
        self.failed.store(false, SeqCst);
        self.once.store(once, SeqCst);
    }
}

impl Session {
    /// The command by which this server is asked for a port.
    pub(super) fn passive(&self) -> &'static str {
        let quirks = &self.setup.quirks;
        if quirks.has(Quirk::NoEpsv) || quirks.has(Quirk::DeadEpsv) {
            "PASV"
        } else {
            "EPSV"
        }
    }

    /// Opens a data connection by `open`, which may be called twice: where EPSV does not lead to
    /// one PASV is tried, once, and if that leads to one it is remembered.
    pub(super) fn by_passive<T>(
        &mut self,
        mut open: impl FnMut(&mut Self) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let plain = self.passive() == "PASV";
        let opened = self.open_by(plain, false, &mut open);
        let Err(trouble) = opened else {
            return opened;
        };
        if self.setup.route.active.is_some() {
            return Err(trouble);
        }
        let failed = self.data.failed.load(SeqCst);
        if plain {
            if failed {
                // It is no better: next time EPSV has its turn again.
                self.setup.quirks.forget(Quirk::DeadEpsv);
            }
            return Err(trouble);
        }
        match &trouble {
            Trouble::Refused {
                code: 500..=599,
                text,
                ..
            } if !self.data.begun() => {
                let opened = self.open_by(true, false, &mut open);
                if self.data.begun() {
                    self.learn(Quirk::NoEpsv, text);
                }
                opened
            }
            _ if failed && self.may_try_pasv() => {
                let told = escape(&trouble.to_string()).into_owned();
                info!(self.setup.log, "no data connection by EPSV"; "error" => told,
                    "next" => "PASV is tried once");
                match self.open_by(true, true, &mut open) {
                    Err(Trouble::Ended) => Err(Trouble::Ended),
                    Err(_) if self.data.failed.load(SeqCst) || !self.data.begun() => Err(trouble),
                    opened => {
                        self.learn(Quirk::DeadEpsv, &trouble.to_string());
                        opened
                    }
                }
            }
            _ => Err(trouble),
        }
    }

    fn open_by<T>(
        &mut self,
        plain: bool,
        once: bool,
        open: &mut impl FnMut(&mut Self) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        self.data.anew(once);
        self.client.set_mode(if plain {
            Mode::Passive
        } else {
            Mode::ExtendedPassive
        });
        open(self)
    }

    /// PASV has no IPv6, and an interrupt leaves no session to try it in.
    fn may_try_pasv(&self) -> bool {
        let peer = self.client.get_ref().peer_addr();
        self.setup.handle.check().is_ok() && peer.is_ok_and(|peer| peer.is_ipv4())
    }
}

/// What runs inside suppaftp between EPSV/PASV and the command that needs the connection.
pub(super) fn connector(
    setup: &Setup,
    line: Arc<Line>,
    data: Arc<Data>,
) -> impl Fn(SocketAddr) -> FtpResult<TcpStream> + Send + Sync + 'static {
    let setup = setup.clone();
    move |peer| {
        data.begun.store(true, SeqCst);
        if line.expects() {
            return active::stand_in().map_err(FtpError::ConnectionError);
        }
        let Setup { handle, timers, .. } = &setup;
        let attempts = Attempts {
            count: if data.once.load(SeqCst) {
                1
            } else {
                timers.data_connect_attempts
            },
            timeout: timers.data_connect,
            interval: timers.data_connect_interval,
        };
        let stream = dial::connect(
            handle,
            &setup.log,
            Which::Data,
            &[peer],
            attempts,
            setup.detection,
        )
        .map_err(|trouble| {
            data.failed.store(true, SeqCst);
            FtpError::ConnectionError(io::Error::other(trouble))
        })?;
        handle.begin(Phase::Reply, Some(timers.reply));
        Ok(stream)
    }
}
