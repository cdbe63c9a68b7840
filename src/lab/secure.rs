//! TLS as commands and handshakes: AUTH, PBSZ, PROT, and the handshakes of both connections with
//! the faults that are laid on them.

use std::time::Duration;

use super::data::DataConn;
use super::events::Event;
use super::fault::Kind;
use super::reply::GARBAGE;
use super::session::{End, Flow, Session, Strike};
use super::step::Step;
use super::wait::Term;

impl Session {
    pub(super) fn auth(&mut self, arg: &[u8], strike: Option<Strike>) -> Flow {
        if self.tls.is_none() {
            return self.reply(502, "Command not implemented.");
        }
        if self.control.is_tls() {
            return self.reply(503, "TLS is on already.");
        }
        let known: [&[u8]; 3] = [b"TLS", b"TLS-C", b"SSL"];
        if !known.contains(&arg.to_ascii_uppercase().as_slice()) {
            return self.reply(504, "TLS only.");
        }
        match strike.map(|strike| strike.kind) {
            Some(Kind::Injected) => self.send(b"234 Go ahead.\r\n230 Logged in.\r\n")?,
            _ => self.reply(234, "Go ahead.")?,
        }
        // What was said in plain counts no more.
        self.inbox.clear();
        self.user = None;
        self.logged_in = false;
        self.secure_control()
    }

    pub(super) fn pbsz(&mut self, arg: &[u8]) -> Flow {
        if !self.control.is_tls() {
            return self.reply(503, "AUTH comes first.");
        }
        match arg {
            b"0" => {
                self.sized = true;
                self.reply(200, "PBSZ=0")
            }
            _ => self.reply(501, "0 only."),
        }
    }

    pub(super) fn prot(&mut self, arg: &[u8]) -> Flow {
        if !self.sized {
            return self.reply(503, "PBSZ comes first.");
        }
        match arg.to_ascii_uppercase().as_slice() {
            b"P" => {
                self.protected = true;
                self.reply(200, "Data connections are TLS.")
            }
            b"C" if self.shared.tls().is_some_and(|tls| tls.required) => {
                self.reply(534, "Data connections must be TLS.")
            }
            b"C" => {
                self.protected = false;
                self.reply(200, "Data connections are plain.")
            }
            _ => self.reply(536, "P or C."),
        }
    }

    /// Makes the control connection TLS; a client that does not manage it is gone.
    pub(super) fn secure_control(&mut self) -> Flow {
        let Some(config) = self.tls.clone() else {
            return Ok(());
        };
        let drip = self.handshake_fault(Step::Tls, "", None)?;
        match self.control.accept_tls(config, &self.shared, drip)? {
            Ok(()) => {
                self.publish_secured(false, self.control.resumed());
                Ok(())
            }
            Err(_) => Err(End::Gone),
        }
    }

    /// Makes a data connection TLS; false: it failed, and the reply is given.
    pub(super) fn secure_data(&mut self, path: &str, data: &mut DataConn) -> Flow<bool> {
        let Some(config) = self.tls.clone() else {
            return Ok(true);
        };
        let drip = self.handshake_fault(Step::DataTls, path, Some(data))?;
        let done = data.stream.accept_tls(config, &self.shared, drip)?;
        if let Err(error) = done {
            self.reply(425, &format!("TLS failed on the data connection: {error}."))?;
            return Ok(false);
        }
        let resumed = data.stream.resumed();
        self.publish_secured(true, resumed);
        let wanted = self.shared.tls().is_some_and(|tls| tls.reuse);
        if wanted && !resumed {
            self.reply(
                522,
                "TLS failed: the session of the control connection must be reused.",
            )?;
            return Ok(false);
        }
        Ok(true)
    }

    fn publish_secured(&self, data: bool, resumed: bool) {
        self.publish(Event::Secured {
            session: self.id,
            data,
            resumed,
        });
    }

    /// The fault of a handshake that holds here: a drip is carried out by the handshake itself.
    fn handshake_fault(
        &mut self,
        step: Step,
        path: &str,
        data: Option<&mut DataConn>,
    ) -> Flow<Option<(Duration, Term)>> {
        let Some(Strike { kind, term }) = self.strike_at(step, path)? else {
            return Ok(None);
        };
        match kind {
            Kind::NoReply(_) => self.freeze(&term, data)?,
            Kind::DeadPathAt(_) => self.lose_path(&term, data)?,
            Kind::Drip { every, .. } => return Ok(Some((every, term))),
            Kind::Garbage(_) => match data {
                Some(data) => data.stream.inject(GARBAGE),
                None => self.control.inject(GARBAGE),
            },
            _ => return Err(End::Quit),
        }
        Ok(None)
    }

    /// Whether a transfer may begin; false: it is refused.
    pub(super) fn may_transfer(&mut self) -> Flow<bool> {
        if self.passive.is_none() && self.active.is_none() {
            self.reply(425, "Use EPSV or EPRT first.")?;
        } else if self.shared.tls().is_some_and(|tls| tls.required) && !self.protected {
            self.reply(522, "Data connections must be TLS.")?;
        } else {
            return Ok(true);
        }
        Ok(false)
    }
}
