//! One-shot commands as a user runs them: in a pipe or in a terminal, with a state folder of their
//! own; and what they say, in which no password ever stands.
#![allow(dead_code)] // each test file uses its own part

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::Signal;

use crate::support::process::{Running, spawn, tied};
use crate::support::servers::Server;
use crate::support::service::variable;
use crate::support::{PATIENCE, temp_dir, wait_until};

/// A person's place: a folder of files, a state folder, and variables.
pub struct Desk {
    pub dir: tempfile::TempDir,
    vars: BTreeMap<String, String>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command that runs.
pub struct Job {
    pub running: Running,
    out: JoinHandle<Vec<u8>>,
    err: JoinHandle<Vec<u8>>,
    secret: Option<String>,
}

impl Desk {
    /// With timers that suit a test.
    pub fn new() -> Self {
        let dir = temp_dir();
        let state = dir.path().join("state").display().to_string();
        let desk = Self {
            dir,
            vars: BTreeMap::new(),
        };
        desk.env("XDG_STATE_HOME", state)
            .key("heartbeat.interval", "100ms")
            .key("retry.first", "100ms")
            .key("retry.max", "1s")
            .key("timers.control_connect", "3s")
            .key("timers.control_connect_interval", "100ms")
            .key("timers.data_connect", "3s")
            .key("timers.data_connect_interval", "100ms")
            .key("timers.reply", "3s")
            .key("timers.stall", "2s")
    }

    /// Of one who may log in there.
    pub fn at(server: &Server) -> Self {
        Self::new().env("FTPULSE_PASSWORD", &server.password)
    }

    pub fn key(self, key: &str, value: impl ToString) -> Self {
        self.env(&variable(key), value)
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.vars.insert(name.into(), value.to_string());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.vars.remove(name);
        self
    }

    /// A file here.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.dir.path().join(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What stands in its state folder.
    pub fn remembered(&self) -> usize {
        let folder = self.dir.path().join("state/ftpulse");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    fn command(&self, before: &[&str], args: &[&str]) -> Command {
        let mut words: Vec<OsString> = before.iter().map(Into::into).collect();
        words.push(env!("CARGO_BIN_EXE_ftpulse").into());
        words.extend(args.iter().map(Into::into));
        let mut command = tied(&words[0]);
        command.args(&words[1..]).current_dir(self.dir.path());
        command.env_clear().envs(&self.vars);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Starts a command in a pipe; it reads `input`.
    pub fn start(&self, args: &[&str], input: &[u8]) -> Job {
        self.start_by(&[], args, input)
    }

    fn start_by(&self, before: &[&str], args: &[&str], input: &[u8]) -> Job {
        let mut command = self.command(before, args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = spawn(command).unwrap();
        let mut stdin = running.child.stdin.take().unwrap();
        let input = input.to_vec();
        // Whoever does not read it is done with it.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let (out, err) = (running.child.stdout.take(), running.child.stderr.take());
        let secret = self.vars.get("FTPULSE_PASSWORD").cloned();
        Job {
            running,
            out: collect(out.unwrap()),
            err: collect(err.unwrap()),
            secret,
        }
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.start(args, b"").end()
    }

    /// Without any terminal.
    pub fn run_far_from_any_terminal(&self, args: &[&str]) -> Said {
        self.start_by(&["setsid", "--wait"], args, b"").end()
    }

    /// In a terminal of 100 columns, where `typed` answers the question for the password.
    pub fn run_in_terminal(&self, args: &[&str], typed: &str) -> Said {
        let script = self.file("terminal.py", TERMINAL.as_bytes());
        let script = script.display().to_string();
        self.start_by(&["python3", &script, typed], args, b"").end()
    }
}

const TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[2], sys.argv[2:])
seen, typed = b"", False
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    seen += piece
    if seen.endswith(b": ") and b"Password of" in seen and not typed:
        echoes = termios.tcgetattr(terminal)[3] & termios.ECHO
        seen += b"(echo)" if echoes else b"(no echo)"
        os.write(terminal, sys.argv[1].encode() + b"\n")
        typed = True
echoes = termios.tcgetattr(terminal)[3] & termios.ECHO
sys.stdout.buffer.write(seen + (b"(usual)" if echoes else b"(mute)"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

impl Job {
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// What it said, as bytes.
    pub fn end_raw(mut self) -> (Option<i32>, Vec<u8>, String) {
        let code = self.running.wait(PATIENCE).code();
        let out = self.out.join().unwrap();
        let err = String::from_utf8(self.err.join().unwrap()).expect("escaped");
        if let Some(secret) = &self.secret {
            assert!(
                !err.contains(secret.as_str()),
                "no password is shown: {err}"
            );
        }
        (code, out, err)
    }

    pub fn end(self) -> Said {
        let secret = self.secret.clone();
        let (code, out, err) = self.end_raw();
        let out = String::from_utf8(out).expect("text");
        if let Some(secret) = secret {
            assert!(!out.contains(&secret), "no password is shown: {out}");
        }
        Said { code, out, err }
    }
}

impl Said {
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn assert_says(&self, text: &str) -> &Self {
        let all = format!("{}\n{}", self.out, self.err);
        assert!(all.contains(text), "{text:?} is not in:\n{all}");
        self
    }
}

/// All files below a folder, with their paths.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                let below = path.strip_prefix(folder).unwrap();
                found.push(below.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Waits until a temp file on the server has that size.
pub fn wait_for_part(server: &Server, bytes: u64) {
    wait_until("a part is there", PATIENCE, || {
        let parts = tree(&server.root);
        let large = |name: &String| {
            let size = std::fs::metadata(server.path(name)).map_or(0, |facts| facts.len());
            name.ends_with(".part") && size >= bytes
        };
        parts.iter().any(large)
    });
}
