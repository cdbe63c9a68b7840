//! How a session begins: the greeting, TLS, the login. Where TLS is asked for, nothing else is done
//! without it. Each reply has a phase and a bound of its own.

use slog::info;
use suppaftp::Status;
use zeroize::Zeroizing;

use super::Trouble;
use super::session::{DONE, Session, Setup};
use super::tls::{self, Security};
use crate::clock;
use crate::core::names::Phase;
use crate::log::escape_reply;

/// What is told of a 332: no setting of ours could help.
const NO_ACCOUNT: &str = "332: it wants an account beside user and password (ACCT), which ftpulse \
                          does not send; ask its keeper for a login that needs none";

impl Session {
    /// The greeting, and TLS before it (`ftps://`) or after it (`ftpes://`, RFC 4217 section 4).
    /// Where TLS is asked for, nothing else is done without it.
    pub(super) fn greet(&mut self) -> Result<(), Trouble> {
        let server = &self.setup.route.server;
        let security = match &server.tls {
            Some(tls) => Some((
                Security::new(tls, &server.host, self.versions)?,
                tls.implicit,
            )),
            None => None,
        };
        self.line.read_exactly(matches!(security, Some((_, false))));
        if let Some((security, true)) = &security {
            self.secure(security)?;
        }
        self.greeting = self.await_greeting()?;
        let Some((security, implicit)) = security else {
            return Ok(());
        };
        if !implicit {
            self.command("AUTH", "TLS", &[Status::AuthOk])?;
            self.secure(&security)?;
        }
        self.protect(implicit)?;
        self.line.secure_data(security);
        Ok(())
    }

    /// 220, or 120 first: the server is not ready yet (RFC 959 section 5.4). One bound holds for all.
    fn await_greeting(&mut self) -> Result<String, Trouble> {
        let end = clock::mono() + self.setup.timers.reply;
        loop {
            let left = end.saturating_sub(clock::mono());
            let expected = [Status::Ready, Status::ReadyMinute];
            let greeting = self.await_reply("greeting", Phase::Greeting, left, &expected)?;
            if greeting.status == Status::Ready {
                return Ok(String::from_utf8_lossy(&greeting.body).into_owned());
            }
            info!(self.setup.log, "the server is not ready yet";
                "error" => escape_reply(&greeting.body), "next" => "its 220 is waited for");
        }
    }

    fn secure(&mut self, security: &Security) -> Result<(), Trouble> {
        let Setup { handle, timers, .. } = &self.setup;
        let connection = security.shake_hands(handle, timers.tls, &self.client.get_ref())?;
        self.agreed = Some(tls::agreed(&connection));
        self.line.secure(connection);
        Ok(())
    }

    /// Data connections are to be TLS, too (RFC 4217 section 9).
    fn protect(&mut self, implicit: bool) -> Result<(), Trouble> {
        match self.command("PBSZ", "0", &[Status::CommandOk]) {
            // PROT tells whether that matters.
            Ok(_)
            | Err(Trouble::Refused {
                code: 500..=599, ..
            }) => {}
            Err(trouble) => return Err(trouble),
        }
        match self.command("PROT", "P", &[Status::CommandOk]) {
            // Servers that are TLS from the first byte may know no other data connections.
            Err(Trouble::Refused {
                code: 500 | 502, ..
            }) if implicit => Ok(()),
            other => other.map(drop),
        }
    }

    /// USER and PASS each have the bound of a reply of their own, so suppaftp's `login`, which
    /// waits for both, is not used.
    pub(super) fn log_in(&mut self) -> Result<(), Trouble> {
        let server = self.setup.route.server.clone();
        // Some servers need no password; 232 says that TLS has told who we are (RFC 2228).
        let entered = [Status::LoggedIn, Status::LogoutAck];
        let asked = [
            entered[0],
            entered[1],
            Status::NeedPassword,
            Status::LoginNeedAccount,
        ];
        let mut code = self.command("USER", &server.user, &asked)?;
        if code == Status::NeedPassword {
            // Past suppaftp, which would leave copies of it in memory.
            let words = ["PASS ", server.password.reveal(), "\r\n"].concat();
            self.line.say_instead(Zeroizing::new(words.into_bytes()));
            let taken = [
                entered[0],
                entered[1],
                Status::CommandNotImplemented,
                Status::LoginNeedAccount,
            ];
            code = self
                .step("PASS", |client| client.custom_command("PASS", &taken))
                .map_err(|trouble| trouble.without(server.password.reveal()))?
                .status;
        }
        if code == Status::LoginNeedAccount {
            return Err(Trouble::Refused {
                verb: "USER",
                code: code.code(),
                text: NO_ACCOUNT.into(),
            });
        }
        self.command("TYPE", "I", DONE)?;
        // Never trust an address other than the control peer's (RFC 2577 section 3).
        self.client.set_passive_nat_workaround(true);
        Ok(())
    }
}
