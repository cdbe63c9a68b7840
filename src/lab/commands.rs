//! The commands of a session other than transfers: what each does and answers. A command that is
//! not served gets 502, one without login 530.

use super::events::Event;
use super::fault::Kind;
use super::listing::{Style, facts, parse_stamp, stamp};
use super::paths::VPath;
use super::quirk::Quirk;
use super::session::{End, Flow, Session, Strike, Turn};
use super::step::Step;

/// Commands that are served before the login.
const OPEN: [&str; 10] = [
    "USER", "PASS", "QUIT", "FEAT", "SYST", "NOOP", "OPTS", "AUTH", "PBSZ", "PROT",
];
/// Commands that need a path.
const WITH_PATH: [&str; 12] = [
    "CWD", "CDUP", "MKD", "RMD", "DELE", "SIZE", "MDTM", "MFMT", "RNFR", "RNTO", "STOR", "RETR",
];
/// Commands whose path may be missing: then it is the current folder.
const OF_FOLDER: [&str; 4] = ["LIST", "NLST", "MLSD", "MLST"];

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
        let verb = verb.as_str();
        if !self.logged_in && !OPEN.contains(&verb) {
            return self.reply(530, "Log in with USER and PASS.");
        }
        if let Some(code) = self.shared.character.refuses(verb) {
            return self.refuse(code);
        }
        let path = match self.path_of(verb, arg) {
            Ok(path) => path,
            Err((code, text)) => return self.reply(code, text),
        };
        let strike = match self.before_reply(verb, path.as_ref())? {
            Turn::On(strike) => strike,
            Turn::Done => return Ok(()),
        };
        match path {
            Some(path) => self.path_command(verb, arg, path, strike),
            None => self.plain_command(verb, arg, strike),
        }
    }

    /// The path that a command names, if it is one that does; the error is the refusal.
    fn path_of(&self, verb: &str, arg: &[u8]) -> Result<Option<VPath>, (u16, &'static str)> {
        let arg = match verb {
            "CDUP" => b"..",
            "LIST" | "NLST" => without_options(arg),
            "MFMT" => arg.splitn(2, |b| *b == b' ').nth(1).unwrap_or(b""),
            _ => arg,
        };
        if WITH_PATH.contains(&verb) && arg.is_empty() {
            return Err((501, "A path is missing."));
        }
        if !WITH_PATH.contains(&verb) && !OF_FOLDER.contains(&verb) {
            return Ok(None);
        }
        let path = self
            .cwd
            .resolve(arg)
            .ok_or((553, "File name not allowed."))?;
        let hidden = path.split().is_some_and(|(_, name)| name.starts_with(b"."));
        let forbids = self.shared.character.has(&Quirk::NoDotFiles);
        if hidden && forbids && matches!(verb, "STOR" | "RNTO") {
            return Err((553, "File name not allowed."));
        }
        Ok(Some(path))
    }

    /// Lets a fault of this command's step strike.
    fn before_reply(&mut self, verb: &str, path: Option<&VPath>) -> Flow<Turn> {
        // A PASV that follows a refused EPSV, or a port that is not to be had, belongs to the same
        // occasion.
        let blocked = self
            .passive
            .as_ref()
            .is_some_and(|passive| passive.strike.is_some());
        let carried = verb == "PASV" && (self.wrong_pasv || blocked);
        let Some(step) = Step::of(verb).filter(|_| !carried) else {
            return Ok(Turn::On(None));
        };
        let path = path.map_or_else(String::new, VPath::to_string);
        let strike = self.strike(&path, |kind| {
            kind.step() == Some(step) && (verb != "PASV" || *kind != Kind::EpsvRefused)
        })?;
        self.carry_out(strike)
    }

    fn plain_command(&mut self, verb: &str, arg: &[u8], strike: Option<Strike>) -> Flow {
        match verb {
            "USER" => self.user(arg),
            "PASS" => self.pass(arg, strike),
            "AUTH" => self.auth(arg, strike),
            "PBSZ" => self.pbsz(arg),
            "PROT" => self.prot(arg),
            "QUIT" => {
                self.reply(221, "Goodbye.")?;
                Err(End::Quit)
            }
            "FEAT" => {
                let tls = self.tls.is_some();
                self.reply_lines(211, &self.shared.character.features(tls))
            }
            "SYST" => self.reply(215, "UNIX Type: L8"),
            "NOOP" => self.reply(200, "Ok."),
            "OPTS" => self.opts(arg),
            "TYPE" => self.representation(arg),
            "MODE" | "STRU" => match arg.to_ascii_uppercase().as_slice() {
                b"S" if verb == "MODE" => self.reply(200, "Ok."),
                b"F" if verb == "STRU" => self.reply(200, "Ok."),
                _ => self.reply(504, "Not implemented for that parameter."),
            },
            "ALLO" => self.reply(202, "No storage allocation necessary."),
            "STAT" => self.reply(211, "All is well."),
            "ABOR" => self.reply(226, "Nothing to abort."),
            "PWD" | "XPWD" => self.pwd(),
            "EPSV" => self.epsv(arg, strike),
            "PASV" => self.pasv(strike),
            "EPRT" => self.eprt(arg),
            "PORT" => self.port(arg),
            "REST" => self.rest(arg),
            _ => self.reply(502, "Command not implemented."),
        }
    }

    /// The commands whose argument is a path.
    fn path_command(
        &mut self,
        verb: &str,
        arg: &[u8],
        path: VPath,
        strike: Option<Strike>,
    ) -> Flow {
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
            "MFMT" => self.mfmt(arg, &path),
            "MLST" => self.mlst(&path),
            "LIST" => self.list(Style::List, &path, strike),
            "NLST" => self.list(Style::Nlst, &path, strike),
            "MLSD" => self.list(Style::Mlsd, &path, strike),
            "RNFR" => self.rnfr(path),
            "RNTO" => self.rnto(&path, strike),
            "RETR" => self.retr(&path, strike),
            _ => self.stor(&path, strike),
        }
    }

    fn outcome(&mut self, done: std::io::Result<()>, code: u16, text: &str) -> Flow {
        match done {
            Ok(()) => self.reply(code, text),
            Err(error) => self.reply(550, &format!("Failed: {error}.")),
        }
    }

    fn user(&mut self, arg: &[u8]) -> Flow {
        if self.shared.tls().is_some_and(|tls| tls.required) && !self.control.is_tls() {
            return self.reply(530, "Log in over TLS only.");
        }
        self.logged_in = false;
        if self.shared.character.has(&Quirk::NoPassword) && arg == self.shared.user.as_bytes() {
            return self.log_in();
        }
        self.user = Some(arg.to_vec());
        self.reply(331, "Please give the password.")
    }

    fn log_in(&mut self) -> Flow {
        self.logged_in = true;
        self.publish(Event::LoggedIn { session: self.id });
        self.reply(230, "Logged in.")
    }

    fn pass(&mut self, arg: &[u8], strike: Option<Strike>) -> Flow {
        if strike.is_some() {
            return self.reply(530, "Login incorrect.");
        }
        let Some(user) = self.user.take() else {
            return self.reply(503, "USER comes first.");
        };
        if user == self.shared.user.as_bytes() && arg == self.shared.password.as_bytes() {
            self.log_in()
        } else {
            self.reply(530, "Login incorrect.")
        }
    }

    fn representation(&mut self, arg: &[u8]) -> Flow {
        let binary = match arg.to_ascii_uppercase().as_slice() {
            b"I" | b"L 8" => true,
            b"A" | b"A N" => false,
            _ => return self.reply(504, "Types I and A only."),
        };
        self.binary = binary;
        self.reply(200, "Type set.")
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
        let text = [&quoted(&self.cwd)[..], b" is the current folder."].concat();
        self.reply_lines(257, &[text])
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
        let text = [&quoted(path)[..], b" created."].concat();
        self.reply_lines(257, &[text])
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
        if !self.binary && self.shared.character.has(&Quirk::SizeNeedsBinary) {
            return self.reply(550, "SIZE not allowed in ASCII mode.");
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
        let entry = [format!(" {}", facts(&meta)).as_bytes(), &path.absolute()].concat();
        self.reply_lines(250, &[b"Listing".to_vec(), entry, b"End".to_vec()])
    }

    fn mfmt(&mut self, arg: &[u8], path: &VPath) -> Flow {
        let time = arg.split(|b| *b == b' ').next().unwrap_or(b"");
        let Some(unix) = parse_stamp(time) else {
            return self.reply(501, "Not a time: YYYYMMDDHHMMSS.");
        };
        match self.shared.root.set_modified(path, unix) {
            Ok(()) => {
                let name = [b"; ", &path.absolute()[..]].concat();
                let text = [b"Modify=", stamp(unix).as_bytes(), &name].concat();
                self.reply_lines(213, &[text])
            }
            Err(error) => self.reply(550, &format!("Failed: {error}.")),
        }
    }

    fn rnfr(&mut self, path: VPath) -> Flow {
        match self.shared.root.meta(&path) {
            Ok(_) => {
                self.rename_from = Some(path);
                self.reply(350, "Ready for RNTO.")
            }
            Err(error) => self.reply(550, &format!("RNFR failed: {error}.")),
        }
    }

    fn rnto(&mut self, path: &VPath, done_no_reply: Option<Strike>) -> Flow {
        let Some(from) = self.rename_from.take() else {
            return self.reply(503, "RNFR comes first.");
        };
        if let Some(code) = self.shared.character.no_overwrite()
            && self.shared.root.meta(path).is_ok()
        {
            return self.reply(code, "A file of this name exists.");
        }
        let done = self.shared.root.rename(&from, path);
        if done.is_ok() {
            let (from, to) = (from.to_string(), path.to_string());
            self.publish(Event::Renamed {
                session: self.id,
                from,
                to,
            });
        }
        if let Some(strike) = done_no_reply {
            self.freeze(&strike.term, None)?;
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
