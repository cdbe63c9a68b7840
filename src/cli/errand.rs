//! What the one-shot commands share: where to and as whom, the worker under its guard, what is
//! shown, what is remembered, and how a signal ends it. The engine is the service's: the same
//! worker, the same steps, the same bounds.

pub mod crew;
pub mod keep;
pub mod plan;
pub mod screen;
mod secret;
pub mod stop;
pub mod target;
pub mod tries;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::keep::Keep;
use self::plan::{Place, ROOT};
use self::stop::Stop;
use super::{ConfigFile, EXIT_FAILED, EXIT_USAGE, Global, complain};
use crate::clock;
use crate::config::{self, Argument, Config, Route, Secret, Sources};

/// How often it is looked whether a helper thread is done, or a signal came.
const LOOK: Duration = Duration::from_millis(50);
/// Who logs in where nobody is named (RFC 1635), and with what.
const ANONYMOUS: (&str, &str) = ("anonymous", "ftpulse@");
/// Where the URL comes from, in what is said about it.
const URL: &str = "the URL";

/// As whom, and how often.
#[derive(Debug, Clone, Args)]
pub struct Login {
    /// Login name, where the URL has none; without any: anonymous. The password comes from
    /// FTPULSE_PASSWORD_FILE (the name of its file), FTPULSE_PASSWORD, or is asked for on the
    /// terminal; never from the command line, and never for anonymous.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// How often a file is tried in all, before it counts as failed; 1 also connects only once.
    /// What a server refuses for good is not tried again.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub attempts: u32,
    /// Trust the certificates in this file (PEM), in place of those that the system trusts (ftpes://
    /// and ftps://).
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Do not verify the server's certificate: whoever is in between can read all.
    #[arg(long)]
    pub insecure: bool,
    /// Let the server open the data connections (active mode).
    #[arg(long)]
    pub active: bool,
    #[command(flatten)]
    pub file: ConfigFile,
}

/// All that is settled before anything is touched.
pub struct Errand {
    /// The settings.
    pub config: Config,
    /// The destination.
    pub route: Route,
    /// Where in it.
    pub place: Place,
    /// Listens to signals.
    pub stop: Stop,
    /// Where the password comes from.
    password: Password,
}

impl Login {
    /// Reads the settings, with those of the command line.
    ///
    /// # Errors
    /// The exit code, when the reason was told.
    pub fn prepare(
        &self,
        verb: &str,
        url: &str,
        more: Vec<Argument>,
        global: Global,
    ) -> Result<Errand, ExitCode> {
        let usage = |text: &str| {
            complain(text);
            ExitCode::from(EXIT_USAGE)
        };
        let (mut arguments, password) = self.arguments(url).map_err(|why| usage(&why))?;
        arguments.extend(more);
        let sources = Sources::of_process(self.file.config.clone());
        // A person gave arguments, and knows of no route.
        let plainly = |text: &str| text.replace(&format!("routes.{verb}."), "");
        let loaded = config::load_route(sources, verb, &arguments)
            .map_err(|faults| usage(plainly(&faults.to_string()).trim_end()))?;
        if !global.quiet {
            for warning in &loaded.warnings {
                complain(&format!("warning: {}", plainly(warning)));
            }
        }
        let mut config = loaded.config;
        if self.attempts == 1 {
            config.timers.control_connect_attempts = 1;
            config.timers.data_connect_attempts = 1;
        }
        let Some(route) = config.routes.get(verb) else {
            return Err(usage("no destination"));
        };
        let mut route = Route::clone(route);
        let stop = Stop::listen().map_err(|e| {
            complain(&format!("cannot listen to signals: {e}"));
            ExitCode::from(EXIT_FAILED)
        })?;
        let place = Place::of(url, &route.server.folder);
        route.server.folder.clone_from(&place.folder);
        route.spool = ROOT.into();
        Ok(Errand {
            config,
            route,
            place,
            stop,
            password,
        })
    }

    /// What only some servers need.
    fn transport(&self) -> Result<Vec<Argument>, String> {
        let mut arguments = Vec::new();
        if let Some(file) = &self.ca_file {
            // Settings of a service are absolute; who sits here means this folder.
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let file = file.to_str().ok_or("--ca-file is no UTF-8 text")?;
            arguments.push(of("ca_file", file, "--ca-file"));
        }
        if self.insecure {
            arguments.push(of("tls_verify", "false", "--insecure"));
        }
        if self.active {
            arguments.push(of("mode", "active", "--active"));
        }
        Ok(arguments)
    }

    fn arguments(&self, url: &str) -> Result<(Vec<Argument>, Password), String> {
        // The spool is a place that no rule about folders can be about.
        let mut arguments = vec![of("server", url, URL), of("spool", "/dev/null", URL)];
        arguments.push(of("uploaders", "1", URL));
        arguments.extend(self.transport()?);
        let named = self.user.is_some() || names_user(url);
        match &self.user {
            Some(user) => arguments.push(of("user", user, "--user")),
            None if !named => arguments.push(of("user", ANONYMOUS.0, URL)),
            None => {}
        }
        let mut set = false;
        // A password is somebody's: whoever answers to "anonymous" does not get it.
        let variables = [
            ("FTPULSE_PASSWORD", "password"),
            ("FTPULSE_PASSWORD_FILE", "password_file"),
        ];
        for (variable, leaf) in variables.into_iter().filter(|_| named) {
            let Some(value) = std::env::var_os(variable) else {
                continue;
            };
            let value = match leaf {
                "password_file" => std::path::absolute(&value).map_or(value, Into::into),
                _ => value,
            };
            let Some(value) = value.to_str() else {
                return Err(format!("{variable} is no UTF-8 text (not shown)"));
            };
            arguments.push(of(leaf, value, variable));
            set = true;
        }
        if !set {
            // Stands for the one that is typed: what is to be said of it is said.
            let typed = if named { "?" } else { "" };
            arguments.push(of("password", typed, URL));
        }
        let source = match (set, named) {
            (true, _) => Password::Set,
            (false, true) => Password::Ask,
            (false, false) => Password::Anonymous,
        };
        Ok((arguments, source))
    }
}

/// `--verify`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Verify {
    /// By its size.
    #[default]
    Size,
    /// And by its hash, as the server tells it.
    Hash,
    /// Not at all: the server's word is enough.
    None,
}

impl Verify {
    /// As the configuration has it.
    pub fn argument(self) -> Argument {
        let value = match self {
            Self::Size => "size",
            Self::Hash => "hash",
            Self::None => "none",
        };
        of("verify", value, "--verify")
    }
}

/// A setting of the command line.
pub fn of(leaf: &'static str, value: &str, origin: &'static str) -> Argument {
    Argument {
        leaf,
        value: Secret::new(value),
        origin,
    }
}

impl Errand {
    /// Asks for the password if need be, once all else is known to be sound.
    ///
    /// # Errors
    /// The exit code, when the reason was told.
    pub fn unlock(&mut self) -> Result<(), ExitCode> {
        let server = &mut self.route.server;
        match self.password {
            Password::Set => {}
            Password::Anonymous => server.password = Secret::new(ANONYMOUS.1),
            Password::Ask => {
                let asked = match secret::terminal() {
                    Some(terminal) => secret::ask(terminal, &server.user, &server.host, &self.stop),
                    None => {
                        complain(
                            "there is no password, and no terminal to ask for it: name its file \
                             in FTPULSE_PASSWORD_FILE, or set FTPULSE_PASSWORD",
                        );
                        return Err(ExitCode::from(EXIT_USAGE));
                    }
                };
                match asked {
                    Ok(Some(secret)) => server.password = secret,
                    Ok(None) => return Err(ended_by(&self.stop)),
                    Err(error) => {
                        complain(&format!("asking for the password failed: {error}"));
                        return Err(ExitCode::from(EXIT_USAGE));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where the password comes from.
#[derive(Debug, Clone, Copy)]
enum Password {
    /// The environment.
    Set,
    /// Nobody is named: any will do.
    Anonymous,
    /// Whoever sits at the terminal.
    Ask,
}

/// Whether the URL names a user; whether it is sound is seen when it is read.
fn names_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.contains('@')
}

/// Opens what is remembered of a place.
///
/// # Errors
/// Why there is none, in words.
pub fn remember(stop: &Stop, config: &Config, at: &str) -> Result<Keep, String> {
    let at = at.to_owned();
    match helped(stop, Some(config.timers.disk), move |_| Keep::open(&at)) {
        Helped::Done(keep) => keep,
        Helped::Stuck(why) => Err(why),
        Helped::Stopped => Err("a signal came".into()),
    }
}

/// The exit code of a command that a signal ended.
pub fn ended_by(stop: &Stop) -> ExitCode {
    let number = stop.came().unwrap_or(libc::SIGINT);
    ExitCode::from(u8::try_from(128 + number).unwrap_or(EXIT_FAILED))
}

/// What became of work on a helper thread.
pub enum Helped<T> {
    /// Its result.
    Done(T),
    /// It stands still for longer than the bound, or its thread could not be had.
    Stuck(String),
    /// A signal came.
    Stopped,
}

/// Has local work done on a thread of its own, since no file system is sure to answer. `seen`,
/// where given a bound, has to count on within it.
pub fn helped<T: Send + 'static>(
    stop: &Stop,
    bound: Option<Duration>,
    work: impl FnOnce(&AtomicU64) -> T + Send + 'static,
) -> Helped<T> {
    let seen = Arc::new(AtomicU64::new(0));
    let (tell, told) = channel();
    let counted = Arc::clone(&seen);
    let started = std::thread::Builder::new()
        .name("local".into())
        .spawn(move || {
            // Nobody may be waiting any more.
            let _ = tell.send(work(&counted));
        });
    if let Err(error) = started {
        return Helped::Stuck(format!("starting a thread failed: {error}"));
    }
    let mut last = (clock::mono(), 0);
    loop {
        match told.recv_timeout(LOOK) {
            Ok(done) => return Helped::Done(done),
            Err(RecvTimeoutError::Disconnected) => {
                return Helped::Stuck("its thread is gone".into());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if stop.came().is_some() {
            return Helped::Stopped;
        }
        let (now, count) = (clock::mono(), seen.load(SeqCst));
        if count != last.1 {
            last = (now, count);
        }
        if bound.is_some_and(|bound| now > last.0 + bound) {
            return Helped::Stuck("the local disk does not answer (timers.disk)".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_seen_in_the_authority_alone() {
        assert!(names_user("ftp://u@h/x") && names_user("ftp://u@h"));
        assert!(!names_user("ftp://h/a@b") && !names_user("ftp://h"));
    }
}
