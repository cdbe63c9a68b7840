//! The product itself as a process: configured by environment alone, its JSON log read as it is
//! written, its HTTP side asked like any client would, ended with everything it started.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ftpulse::clock;
use rustix::process::Signal;
use serde_json::Value;

use super::http::{self, Answer, Metrics};
use super::process::{Running, spawn, tied};
use super::servers::Server;
use super::{PATIENCE, temp_dir, wait_for, wait_until};

/// The settings of a service that is not started yet.
pub struct Settings {
    dir: Arc<tempfile::TempDir>,
    vars: BTreeMap<String, String>,
    args: Vec<String>,
}

/// `routes.main.spool` as its variable: `FTPULSE__ROUTES__MAIN__SPOOL`.
pub fn variable(key: &str) -> String {
    format!("FTPULSE__{}", key.to_uppercase().replace('.', "__"))
}

impl Settings {
    /// A state folder of its own, HTTP on a free port, a debug log in JSON, no route.
    pub fn new() -> Self {
        let dir = Arc::new(temp_dir());
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::create_dir(dir.path().join("staging")).unwrap();
        let settings = Self {
            dir,
            vars: BTreeMap::new(),
            args: vec!["run".into()],
        };
        settings
            .key("state.dir", state.display())
            .key("http.listen", "127.0.0.1:0")
            .key("log.level", "debug")
            .key("log.format", "json")
    }

    /// Sets a key of the configuration.
    pub fn key(mut self, key: &str, value: impl ToString) -> Self {
        self.vars.insert(variable(key), value.to_string());
        self
    }

    /// Takes a key away from the environment: a configuration file has it.
    pub fn without(mut self, key: &str) -> Self {
        self.vars.remove(&variable(key));
        self
    }

    /// Sets any variable of the environment.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.vars.insert(name.into(), value.to_string());
        self
    }

    /// Adds a command-line argument after `run`.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Another command of the program in the place of `run`.
    pub fn command(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).into()).collect();
        self
    }

    /// A route to `folder` of a real server, with a new spool folder.
    pub fn route(self, name: &str, server: &Server, folder: &str) -> Self {
        let settings = self.route_to(name, &server.url(folder), &server.password);
        match server.authority() {
            Some(path) => settings.key(&format!("routes.{name}.ca_file"), path.display()),
            None => settings,
        }
    }

    /// A route to a URL, with a new spool folder.
    pub fn route_to(self, name: &str, url: &str, password: &str) -> Self {
        let spool = self.dir.path().join("spool").join(name);
        fs::create_dir_all(&spool).unwrap();
        let key = |key: &str| format!("routes.{name}.{key}");
        self.key(&key("spool"), spool.display())
            .key(&key("server"), url)
            .key(&key("password"), password)
            .key(&key("settle"), "200ms")
    }

    /// Timers that suit a test; each is still far above what a healthy server needs.
    pub fn quick(self) -> Self {
        self.key("heartbeat.interval", "100ms")
            .key("retry.first", "100ms")
            .key("retry.max", "1s")
            .key("timers.control_connect", "3s")
            .key("timers.control_connect_interval", "100ms")
            .key("timers.data_connect", "3s")
            .key("timers.data_connect_interval", "100ms")
            .key("timers.reply", "3s")
            .key("timers.stall", "2s")
    }

    /// The spool folder of a route.
    pub fn spool(&self, route: &str) -> PathBuf {
        self.dir.path().join("spool").join(route)
    }

    /// Starts the service; returns when it says where it listens.
    pub fn start(self) -> Ftpulse {
        let mut service = self.launch();
        service.wait_listening();
        service
    }

    /// Starts the process and waits for nothing: for starts that shall fail.
    pub fn launch(self) -> Ftpulse {
        self.launch_as(tied(env!("CARGO_BIN_EXE_ftpulse")))
    }

    /// The same by a command that ends with the program: its arguments and variables are added.
    pub fn launch_as(self, mut command: Command) -> Ftpulse {
        command.args(&self.args).env_clear().envs(&self.vars);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        self.launch_by(command)
    }

    /// The variables set so far.
    pub fn vars(&self) -> &BTreeMap<String, String> {
        &self.vars
    }

    /// Starts the service by a command of the test's own, such as a container's.
    pub fn launch_by(self, mut command: Command) -> Ftpulse {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = spawn(command).expect("start ftpulse");
        let log = Arc::new(Log::default());
        let stderr = process.child.stderr.take().expect("stderr is a pipe");
        let writer = Arc::clone(&log);
        std::thread::spawn(move || writer.fill(BufReader::new(stderr)));
        Ftpulse {
            process,
            log,
            dir: self.dir,
            vars: self.vars,
            args: self.args,
            http: None,
        }
    }
}

/// The lines of a running service.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    /// JSON objects; a line that is none is kept as a string.
    values: Vec<Value>,
    closed: bool,
}

impl Log {
    fn fill(&self, reader: impl BufRead) {
        for line in reader.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.lines.lock().unwrap().values.push(value);
            self.grown.notify_all();
        }
        self.lines.lock().unwrap().closed = true;
        self.grown.notify_all();
    }
}

/// A running service.
pub struct Ftpulse {
    /// The process.
    pub process: Running,
    log: Arc<Log>,
    dir: Arc<tempfile::TempDir>,
    vars: BTreeMap<String, String>,
    args: Vec<String>,
    http: Option<SocketAddr>,
}

impl Ftpulse {
    /// Where it serves HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http.expect("started by `start`")
    }

    /// Waits until it says where it listens.
    pub fn wait_listening(&mut self) {
        let line = self.wait_log("listening", |_| true);
        let address = line["address"]
            .as_str()
            .expect("`listening` names its address");
        self.http = Some(address.parse().unwrap());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The spool folder of a route.
    pub fn spool(&self, route: &str) -> PathBuf {
        self.dir.path().join("spool").join(route)
    }

    /// Puts a whole file into the spool at once, as a careful producer does: by rename.
    pub fn put(&self, route: &str, name: &str, bytes: &[u8]) -> PathBuf {
        let staged = self
            .dir
            .path()
            .join("staging")
            .join(format!("{route}-{}", clock_id()));
        let target = self.spool(route).join(name);
        fs::create_dir_all(target.parent().expect("below the spool")).unwrap();
        fs::File::create(&staged).unwrap().write_all(bytes).unwrap();
        fs::rename(&staged, &target).unwrap();
        target
    }

    /// Waits for a log line with that message and fields; earlier lines count too.
    pub fn wait_log(&self, msg: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_log_within(PATIENCE, msg, fits)
    }

    /// The same with a bound of its own.
    pub fn wait_log_within(
        &self,
        bound: Duration,
        msg: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = clock::mono() + bound;
        let mut lines = self.log.lines.lock().unwrap();
        let mut next = 0;
        loop {
            let fresh = &lines.values[next..];
            if let Some(line) = fresh.iter().find(|line| line["msg"] == msg && fits(line)) {
                return line.clone();
            }
            next = lines.values.len();
            let ended = lines.closed;
            let left = end.saturating_sub(clock::mono());
            if ended || left.is_zero() {
                drop(lines);
                let why = if ended {
                    "the service ended"
                } else {
                    "the bound has passed"
                };
                panic!("no log line `{msg}`: {why}");
            }
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for a log line with one of these messages; earlier lines count too.
    pub fn wait_any(&self, messages: &[&str]) -> Value {
        let what = messages.join(" or ");
        wait_for(&what, PATIENCE, || {
            let lines = self.lines();
            lines
                .into_iter()
                .find(|l| l["msg"].as_str().is_some_and(|m| messages.contains(&m)))
        })
    }

    /// All log lines so far with that message.
    pub fn logged(&self, msg: &str) -> Vec<Value> {
        self.lines()
            .into_iter()
            .filter(|line| line["msg"] == msg)
            .collect()
    }

    /// All log lines so far.
    pub fn lines(&self) -> Vec<Value> {
        self.log.lines.lock().unwrap().values.clone()
    }

    /// The log as text; after the end of the process it is whole.
    pub fn log_text(&self) -> String {
        self.lines().iter().map(text_of).collect()
    }

    /// Waits until a file is told as delivered.
    pub fn wait_delivered(&self, file: &str) -> Value {
        self.wait_log("file delivered", |line| line["file"] == file)
    }

    /// Waits until the spool of a route holds no regular file any more.
    pub fn wait_spool_empty(&self, route: &str, bound: Duration) {
        let spool = self.spool(route);
        wait_until("the spool is empty", bound, || !holds_files(&spool));
    }

    /// GET on its HTTP side.
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.http(), path).unwrap()
    }

    /// A scrape.
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.head);
        Metrics::parse(answer.body)
    }

    /// Waits until a scrape satisfies a condition.
    pub fn wait_metrics(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        super::wait_for(what, PATIENCE, || Some(self.metrics()).filter(&holds))
    }

    /// A JSON document of its HTTP side.
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).body).unwrap()
    }

    /// Sends a signal to the service.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        let status = self.process.wait(bound);
        wait_until("the log is read to its end", PATIENCE, || {
            self.log.lines.lock().unwrap().closed
        });
        status
    }

    /// SIGTERM, then its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_exit(PATIENCE).code()
    }

    /// Ends it without mercy and starts it again with the same settings and folders.
    pub fn kill_and_restart(self) -> Self {
        self.restart_but(&["run"], |_| ())
    }

    /// The same with other arguments.
    pub fn kill_and_restart_as(self, args: &[&str]) -> Self {
        self.restart_but(args, |_| ())
    }

    /// The same with a variable of the environment set, or taken away.
    pub fn restart_with(self, name: &str, value: Option<&str>) -> Self {
        self.restart_but(&["run"], |vars| match value {
            Some(value) => drop(vars.insert(name.into(), value.into())),
            None => drop(vars.remove(name)),
        })
    }

    /// The same for a life that may end before it listens.
    pub fn relaunch_with(self, name: &str, value: &str) -> Self {
        self.settings_but(&["run"], |vars| {
            drop(vars.insert(name.into(), value.into()))
        })
        .launch()
    }

    fn restart_but(
        self,
        args: &[&str],
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Self {
        self.settings_but(args, change).start()
    }

    fn settings_but(
        mut self,
        args: &[&str],
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Settings {
        self.process.kill();
        change(&mut self.vars);
        let (dir, vars) = (Arc::clone(&self.dir), std::mem::take(&mut self.vars));
        Settings {
            dir,
            vars,
            args: args.iter().map(|arg| (*arg).into()).collect(),
        }
    }
}

impl Drop for Ftpulse {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!(
                "--- ftpulse, last lines\n{}",
                tail.iter().map(text_of).collect::<String>()
            );
        }
    }
}

fn text_of(line: &Value) -> String {
    line.as_str()
        .map_or_else(|| format!("{line}\n"), |raw| format!("{raw}\n"))
}

fn clock_id() -> u128 {
    clock::mono().as_nanos()
}

/// Whether any regular file is below a folder; names with a leading dot do not count.
fn holds_files(folder: &Path) -> bool {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let kind = entry.file_type();
            !hidden
                && kind
                    .is_ok_and(|kind| kind.is_file() || kind.is_dir() && holds_files(&entry.path()))
        })
}
