//! The data port: EPSV and PASV, and the faults of a port that answers no SYN, that is closed, or
//! whose address is wrong. One port at a time; it is bound to loopback.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::Socket;

use super::data::SMALL_BUFFER;
use super::fault::Kind;
use super::quirk::Quirk;
use super::server::{Shared, loopback_listener, loopback_socket};
use super::session::{End, Flow, Session, Strike};
use super::stream::Stream;
use super::wait::{Term, ended, wait};
use crate::clock::mono;

/// How long a client may take from its STOR to its data connection.
const ACCEPT_TIME: Duration = Duration::from_secs(60);

/// What answers at the data port.
enum Port {
    Open(TcpListener),
    /// Bound, not listening: connects are refused, and nobody else can get the port.
    Closed(Socket),
    /// The backlog is full of our own connections: a SYN gets no answer.
    Stuffed(TcpListener, Vec<TcpStream>),
}

/// The data port that EPSV or PASV opened.
pub(super) struct Passive {
    port: Port,
    number: u16,
    /// When a closed or stuffed port opens.
    pub term: Option<Term>,
    /// The fault that keeps it shut, where that is none of the server's ways.
    pub strike: Option<Strike>,
}

impl Passive {
    pub(super) fn open(ip: IpAddr, small: bool) -> io::Result<Self> {
        let listener = loopback_listener(ip, 8, small.then_some(SMALL_BUFFER))?;
        let number = listener.local_addr()?.port();
        Ok(Self {
            port: Port::Open(listener),
            number,
            term: None,
            strike: None,
        })
    }

    pub(super) fn closed(ip: IpAddr, term: Term) -> io::Result<Self> {
        let socket = loopback_socket(ip)?;
        let bound: TcpListener = socket.try_clone()?.into();
        let number = bound.local_addr()?.port();
        Ok(Self {
            port: Port::Closed(socket),
            number,
            term: Some(term),
            strike: None,
        })
    }

    pub(super) fn stuffed(ip: IpAddr, term: Term) -> io::Result<Self> {
        // A backlog of b takes b + 1 connections; with one more place than the queue of
        // half-open ones needs, the kernel drops further SYNs and suspects no flood.
        const BACKLOG: i32 = 1;
        let listener = loopback_listener(ip, BACKLOG, None)?;
        let addr = listener.local_addr()?;
        let fillers = (0..=BACKLOG)
            .map(|_| TcpStream::connect_timeout(&addr, ACCEPT_TIME))
            .collect::<io::Result<_>>()?;
        let port = Port::Stuffed(listener, fillers);
        Ok(Self {
            port,
            number: addr.port(),
            term: Some(term),
            strike: None,
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Ends the fault of a closed or stuffed port.
    pub(super) fn unblock(self) -> io::Result<Self> {
        let port = match self.port {
            Port::Open(listener) => Port::Open(listener),
            Port::Closed(socket) => {
                socket.listen(8)?;
                socket.set_nonblocking(true)?;
                Port::Open(socket.into())
            }
            Port::Stuffed(listener, fillers) => {
                for _ in &fillers {
                    drop(listener.accept()?);
                }
                Port::Open(listener)
            }
        };
        Ok(Self {
            port,
            number: self.number,
            term: None,
            strike: None,
        })
    }

    fn listener(&self) -> Option<&TcpListener> {
        match &self.port {
            Port::Open(listener) => Some(listener),
            Port::Closed(_) | Port::Stuffed(..) => None,
        }
    }

    /// The client's connection, if it is there already.
    pub(super) fn waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        self.listener()?.accept().ok()
    }

    /// Waits for the client's connection; `None` when none comes in time.
    pub(super) fn accept(&self, shared: &Shared, control: &Stream) -> Flow<Option<TcpStream>> {
        let end = Some(mono() + ACCEPT_TIME);
        let Some(listener) = self.listener() else {
            return Ok(None);
        };
        loop {
            if let Some((stream, peer)) = self.waiting() {
                if peer.ip().is_loopback() {
                    return Ok(Some(stream));
                }
                continue;
            }
            let mut fds = [
                shared.stop.watch(),
                PollFd::new(control, PollFlags::RDHUP),
                PollFd::new(listener, PollFlags::IN),
            ];
            if !wait(&mut fds, end)? {
                return Ok(None);
            }
            let gone = ended(fds[1].revents()) && fds[2].revents().is_empty();
            if shared.stop.is_open() {
                return Err(End::Stopped);
            } else if gone {
                return Err(End::Gone);
            }
        }
    }
}

impl Session {
    pub(super) fn epsv(&mut self, arg: &[u8], strike: Option<Strike>) -> Flow {
        let ip = self.control.local_ip()?;
        let own: &[u8] = if ip.is_ipv4() { b"1" } else { b"2" };
        match arg.to_ascii_uppercase().as_slice() {
            b"" => {}
            family if family == own => {}
            b"ALL" => return self.reply(200, "EPSV only from now on."),
            _ if ip.is_ipv4() => return self.reply(522, "Protocol not supported, use (1)"),
            _ => return self.reply(522, "Protocol not supported, use (2)"),
        }
        match strike.as_ref().map(|strike| strike.kind) {
            Some(Kind::EpsvRefused) => return self.reply(500, "EPSV not understood."),
            Some(Kind::WrongPasv) => {
                self.wrong_pasv = true;
                return self.reply(502, "EPSV not implemented.");
            }
            _ => {}
        }
        let shut = [
            (Quirk::DeadEpsv, Kind::DataRefused),
            (Quirk::DeafEpsv, Kind::DataNotAccepted),
        ];
        let shut = shut
            .iter()
            .find(|(quirk, _)| self.shared.character.has(quirk));
        if let Some((_, kind)) = shut.filter(|_| strike.is_none()) {
            let port = self.open_passive(ip, Some(Strike::for_ever(*kind)));
            if let Some(passive) = &mut self.passive {
                passive.strike = None;
            }
            return self.epsv_port(port);
        }
        let port = self.open_passive(ip, strike);
        self.epsv_port(port)
    }

    fn epsv_port(&mut self, port: Option<u16>) -> Flow {
        match port {
            Some(port) => self.reply(229, &format!("Entering Extended Passive Mode (|||{port}|)")),
            None => self.reply(425, "No data port could be opened."),
        }
    }

    pub(super) fn pasv(&mut self, strike: Option<Strike>) -> Flow {
        let carried = std::mem::take(&mut self.wrong_pasv);
        let ip = self.control.local_ip()?;
        if ip.is_ipv6() {
            return self.reply(425, "You cannot use PASV over IPv6, use EPSV.");
        }
        let kind = strike.as_ref().map(|strike| strike.kind);
        let foreign = self.shared.character.has(&Quirk::ForeignPasv);
        let foreign = foreign || carried || kind == Some(Kind::WrongPasv);
        // The port that was not to be had is not to be had by another name either.
        let blocked = self.passive.take().and_then(|passive| passive.strike);
        let Some(port) = self.open_passive(ip, strike.or(blocked)) else {
            return self.reply(425, "No data port could be opened.");
        };
        let host = if foreign { "192,0,2,1" } else { "127,0,0,1" };
        let (high, low) = (port >> 8, port & 255);
        self.reply(
            227,
            &format!("Entering Passive Mode ({host},{high},{low})."),
        )
    }

    /// Opens the data port, in the state that a fault lays on it.
    fn open_passive(&mut self, ip: IpAddr, strike: Option<Strike>) -> Option<u16> {
        // The old port goes first: a client has one at a time.
        self.passive = None;
        self.active = None;
        let small = self.shared.armed.any_stop_reading();
        let opened = match &strike {
            Some(Strike {
                kind: Kind::DataRefused,
                term,
            }) => Passive::closed(ip, term.clone()),
            Some(Strike {
                kind: Kind::DataNotAccepted,
                term,
            }) => Passive::stuffed(ip, term.clone()),
            _ => Passive::open(ip, small),
        };
        let shuts =
            |strike: &Strike| matches!(strike.kind, Kind::DataRefused | Kind::DataNotAccepted);
        self.passive = opened.ok().map(|passive| Passive {
            strike: strike.filter(shuts),
            ..passive
        });
        self.passive.as_ref().map(Passive::number)
    }
}
