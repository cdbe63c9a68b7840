//! The commands of a session other than transfers: what each does and answers. A command that is
//! not served gets 502, one without login 530.

use super::events::Event;
use super::fault::{Kind, Step};
use super::listing::{Style, facts, stamp};
use super::paths::VPath;
use super::session::{End, Flow, Session, Strike};

const FEATURES: &str = "211-Features:\r\n EPSV\r\n MDTM\r\n MLST type*;size*;modify*;\r\n PASV\r\n \
                        REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End\r\n";

impl Session {
    pub(super) fn publish(&self, event: Event) {
        self.shared.hub.publish(event);
    }

    /// Executes one line.
    pub(super) fn command(&mut self, line: &[u8]) -> Flow {
        let line = without_telnet(line);
        let (verb, arg) = match line.iter().position(|b| *b == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
        let shown = match verb.as_str() {
            "PASS" => "****".to_owned(),
            _ => String::from_utf8_lossy(arg).into_owned(),
        };
        self.publish(Event::Command {
            session: self.id,
            verb: verb.clone(),
            arg: shown,
        });
        match verb.as_str() {
            "USER" => self.user(arg),
            "PASS" => self.pass(arg),
            "QUIT" => {
                self.reply(221, "Goodbye.")?;
                Err(End::Quit)
            }
            "FEAT" => self.send(FEATURES.as_bytes()),
            "SYST" => self.reply(215, "UNIX Type: L8"),
            "NOOP" => self.reply(200, "Ok."),
            "OPTS" => self.opts(arg),
            _ if !self.logged_in => self.reply(530, "Log in with USER and PASS."),
            _ => self.logged_in_command(&verb, arg),
        }
    }

    fn logged_in_command(&mut self, verb: &str, arg: &[u8]) -> Flow {
        match verb {
            "TYPE" => match arg.to_ascii_uppercase().as_slice() {
                b"I" | b"L 8" | b"A" | b"A N" => self.reply(200, "Type set."),
                _ => self.reply(504, "Types I and A only."),
            },
            "MODE" | "STRU" => match arg.to_ascii_uppercase().as_slice() {
                b"S" if verb == "MODE" => self.reply(200, "Ok."),
                b"F" if verb == "STRU" => self.reply(200, "Ok."),
                _ => self.reply(504, "Not implemented for that parameter."),
            },
            "ALLO" => self.reply(202, "No storage allocation necessary."),
            "STAT" => self.reply(211, "All is well."),
            "ABOR" => self.reply(226, "Nothing to abort."),
            "PWD" | "XPWD" => self.pwd(),
            "EPSV" => self.epsv(arg),
            "PASV" => self.pasv(),
            "REST" => self.rest(arg),
            "LIST" => self.listing(Style::List, without_options(arg)),
            "NLST" => self.listing(Style::Nlst, without_options(arg)),
            "MLSD" => self.listing(Style::Mlsd, arg),
            _ => self.path_command(verb, arg),
        }
    }

    /// The commands whose argument is a path.
    fn path_command(&mut self, verb: &str, arg: &[u8]) -> Flow {
        let known = matches!(
            verb,
            "CWD"
                | "CDUP"
                | "MKD"
                | "RMD"
                | "DELE"
                | "SIZE"
                | "MDTM"
                | "MLST"
                | "RNFR"
                | "RNTO"
                | "STOR"
                | "RETR"
        );
        if !known {
            return self.reply(502, "Command not implemented.");
        }
        let arg = if verb == "CDUP" { b".." } else { arg };
        if arg.is_empty() && !matches!(verb, "MLST") {
            return self.reply(501, "A path is missing.");
        }
        let Some(path) = self.cwd.resolve(arg) else {
            return self.reply(553, "File name not allowed.");
        };
        match verb {
            "CWD" | "CDUP" => self.cwd(path),
            "MKD" => self.mkd(&path),
            "RMD" => {
                let done = self.shared.root.remove_folder(&path);
                self.outcome(done, 250, "Folder removed.")
            }
            "DELE" => self.dele(&path),
            "SIZE" => self.size(&path),
            "MDTM" => match self.shared.root.meta(&path) {
                Ok(meta) => self.reply(213, &stamp(meta.modified)),
                Err(error) => self.reply(550, &format!("No such file: {error}.")),
            },
            "MLST" => self.mlst(&path),
            "RNFR" => self.rnfr(path),
            "RNTO" => self.rnto(&path),
            "RETR" => self.retr(&path),
            _ => self.stor(&path),
        }
    }

    fn outcome(&mut self, done: std::io::Result<()>, code: u16, text: &str) -> Flow {
        match done {
            Ok(()) => self.reply(code, text),
            Err(error) => self.reply(550, &format!("Failed: {error}.")),
        }
    }

    fn user(&mut self, arg: &[u8]) -> Flow {
        if let Some(strike) = self.strike_at(Step::User, "")? {
            match strike.kind {
                Kind::Garbage(_) => return self.garbage(),
                _ => self.hold_or_spoil(strike)?,
            }
        }
        self.logged_in = false;
        self.user = Some(arg.to_vec());
        self.reply(331, "Please give the password.")
    }

    fn pass(&mut self, arg: &[u8]) -> Flow {
        let strike = self.strike_at(Step::Pass, "")?;
        match strike {
            Some(Strike {
                kind: Kind::LoginRefused,
                ..
            }) => {
                return self.reply(530, "Login incorrect.");
            }
            Some(Strike {
                kind: Kind::Garbage(_),
                ..
            }) => return self.garbage(),
            Some(strike) => self.hold_or_spoil(strike)?,
            None => {}
        }
        let Some(user) = self.user.take() else {
            return self.reply(503, "USER comes first.");
        };
        if user == self.shared.user.as_bytes() && arg == self.shared.password.as_bytes() {
            self.logged_in = true;
            self.publish(Event::LoggedIn { session: self.id });
            self.reply(230, "Logged in.")
        } else {
            self.reply(530, "Login incorrect.")
        }
    }

    fn opts(&mut self, arg: &[u8]) -> Flow {
        let arg = arg.to_ascii_uppercase();
        if arg.starts_with(b"UTF8") || arg.starts_with(b"MLST") {
            self.reply(200, "Ok.")
        } else {
            self.reply(501, "Option not understood.")
        }
    }

    fn pwd(&mut self) -> Flow {
        let mut line = b"257 ".to_vec();
        line.extend(quoted(&self.cwd));
        line.extend_from_slice(b" is the current folder.\r\n");
        self.send(&line)
    }

    fn cwd(&mut self, path: VPath) -> Flow {
        match self.shared.root.meta(&path) {
            Ok(meta) if meta.folder => {
                self.cwd = path;
                self.reply(250, "Folder changed.")
            }
            Ok(_) => self.reply(550, "Not a folder."),
            Err(error) => self.reply(550, &format!("Failed to change folder: {error}.")),
        }
    }

    fn mkd(&mut self, path: &VPath) -> Flow {
        if let Err(error) = self.shared.root.make_folder(path) {
            return self.reply(550, &format!("Failed: {error}."));
        }
        let mut line = b"257 ".to_vec();
        line.extend(quoted(path));
        line.extend_from_slice(b" created.\r\n");
        self.send(&line)
    }

    fn dele(&mut self, path: &VPath) -> Flow {
        let done = self.shared.root.remove(path);
        if done.is_ok() {
            self.publish(Event::Deleted {
                session: self.id,
                path: path.to_string(),
            });
        }
        self.outcome(done, 250, "File deleted.")
    }

    fn size(&mut self, path: &VPath) -> Flow {
        if let Some(strike) = self.strike_at(Step::Size, &path.to_string())? {
            match strike.kind {
                Kind::Garbage(_) => return self.garbage(),
                _ => self.hold_or_spoil(strike)?,
            }
        }
        match self.shared.root.meta(path) {
            Ok(meta) if !meta.folder => self.reply(213, &meta.size.to_string()),
            Ok(_) => self.reply(550, "Not a regular file."),
            Err(error) => self.reply(550, &format!("No such file: {error}.")),
        }
    }

    fn mlst(&mut self, path: &VPath) -> Flow {
        let meta = match self.shared.root.meta(path) {
            Ok(meta) => meta,
            Err(error) => return self.reply(550, &format!("No such file: {error}.")),
        };
        let mut text = format!("250-Listing\r\n {}", facts(&meta)).into_bytes();
        text.extend(path.absolute());
        text.extend_from_slice(b"\r\n250 End\r\n");
        self.send(&text)
    }

    fn rnfr(&mut self, path: VPath) -> Flow {
        if let Some(strike) = self.strike_at(Step::Rnfr, &path.to_string())? {
            match strike.kind {
                Kind::Garbage(_) => return self.garbage(),
                _ => self.hold_or_spoil(strike)?,
            }
        }
        match self.shared.root.meta(&path) {
            Ok(_) => {
                self.rename_from = Some(path);
                self.reply(350, "Ready for RNTO.")
            }
            Err(error) => self.reply(550, &format!("RNFR failed: {error}.")),
        }
    }

    fn rnto(&mut self, path: &VPath) -> Flow {
        let mut after = None;
        if let Some(strike) = self.strike_at(Step::Rnto, &path.to_string())? {
            match strike.kind {
                Kind::Garbage(_) => return self.garbage(),
                Kind::RntoDoneNoReply => after = Some(strike.term),
                _ => self.hold_or_spoil(strike)?,
            }
        }
        let Some(from) = self.rename_from.take() else {
            return self.reply(503, "RNFR comes first.");
        };
        let done = self.shared.root.rename(&from, path);
        if done.is_ok() {
            let (from, to) = (from.to_string(), path.to_string());
            self.publish(Event::Renamed {
                session: self.id,
                from,
                to,
            });
        }
        if let Some(term) = after {
            self.freeze(&term, None)?;
        }
        self.outcome(done, 250, "Renamed.")
    }

    fn rest(&mut self, arg: &[u8]) -> Flow {
        match std::str::from_utf8(arg)
            .ok()
            .and_then(|arg| arg.parse().ok())
        {
            Some(offset) => {
                self.restart = offset;
                self.reply(350, "Restart position accepted.")
            }
            None => self.reply(501, "Not a position."),
        }
    }

    fn listing(&mut self, style: Style, arg: &[u8]) -> Flow {
        match self.cwd.resolve(arg) {
            Some(path) => self.list(style, &path),
            None => self.reply(553, "File name not allowed."),
        }
    }
}

/// A path in a 257 reply: in quotes, its own quotes doubled.
fn quoted(path: &VPath) -> Vec<u8> {
    let mut out = vec![b'"'];
    for byte in path.absolute() {
        out.push(byte);
        if byte == b'"' {
            out.push(byte);
        }
    }
    out.push(b'"');
    out
}

/// The line without the Telnet signals that clients put before ABOR.
fn without_telnet(mut line: &[u8]) -> &[u8] {
    while let [255, 240..=254, rest @ ..] = line {
        line = rest;
    }
    line
}

/// The argument of LIST and NLST without `ls` options such as `-la`.
fn without_options(arg: &[u8]) -> &[u8] {
    let first = arg.split(|b| *b == b' ').next().unwrap_or(b"");
    match first {
        [b'-', letters @ ..] if letters.iter().all(u8::is_ascii_alphabetic) => {
            arg.get(first.len() + 1..).unwrap_or(b"")
        }
        _ => arg,
    }
}
