//! Small programs under `ftpulse watchdog`: Python scripts that write down what they do and when,
//! by the one clock that all processes share.

#![allow(dead_code)] // each test file uses its own part

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::support::service::{Ftpulse, Settings};
use super::support::{PATIENCE, temp_dir, wait_for};

/// What every program begins with.
const PRELUDE: &str = r#"
import os, signal, socket, subprocess, sys, threading, time
EVENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "events")
ADDRESS = "\0" + os.environ["NOTIFY_SOCKET"][1:]
SOCKET = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def notify(*lines):
    SOCKET.sendto("\n".join(lines).encode(), ADDRESS)
def stamp(what):
    with open(EVENTS, "a") as f:
        f.write(f"{time.monotonic()} {os.getpid()} {what}\n")
def beat(seconds, *lines):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        notify(*(lines or ("WATCHDOG=1",)))
        time.sleep(0.05)
LIFE = 1
if os.path.exists(EVENTS):
    LIFE += sum(line.endswith(" start\n") for line in open(EVENTS))
stamp("start")
def forever():
    beat(1e9)
"#;

/// The interpreter itself: what stands in PATH may be a slow script that looks for it.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let asked = Command::new("python3")
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .expect("python3 is needed; tests/run installs it");
        String::from_utf8(asked.stdout).unwrap().trim().into()
    })
}

/// What a program wrote down.
#[derive(Debug, Clone)]
pub struct Event {
    /// By the clock that all processes share, in seconds.
    pub at: f64,
    /// Who.
    pub pid: u32,
    /// What.
    pub what: String,
}

/// A program under its watchdog.
pub struct Guarded {
    /// The watchdog.
    pub guard: Ftpulse,
    folder: tempfile::TempDir,
}

impl Guarded {
    /// Starts `ftpulse watchdog` with this Python program and these settings.
    pub fn start(program: &str, settings: impl FnOnce(Settings) -> Settings) -> Self {
        let folder = temp_dir();
        let script = folder.path().join("program.py");
        fs::write(&script, format!("{PRELUDE}{program}")).unwrap();
        let python = python().to_str().unwrap();
        let args = [
            "watchdog",
            "--",
            python,
            "-I",
            "-S",
            script.to_str().unwrap(),
        ];
        let guard = settings(Settings::new()).command(&args).launch();
        Self { guard, folder }
    }

    /// All that was written down so far.
    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.folder.path().join("events")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| {
            let mut parts = line.splitn(3, ' ');
            Event {
                at: parts.next().unwrap().parse().unwrap(),
                pid: parts.next().unwrap().parse().unwrap(),
                what: parts.next().unwrap().to_owned(),
            }
        });
        lines.collect()
    }

    /// Waits for the `nth` (from 1) event that begins so.
    pub fn wait_event(&self, what: &str, nth: usize) -> Event {
        wait_for(&format!("event {what} {nth}"), PATIENCE, || {
            let mut events = self
                .events()
                .into_iter()
                .filter(|e| e.what.starts_with(what));
            events.nth(nth - 1)
        })
    }

    /// Writes something down where the program can read it.
    pub fn say(&self, what: &str) {
        let path = self.folder.path().join("events");
        let mut file = fs::File::options().append(true).open(path).unwrap();
        writeln!(file, "0 0 {what}").unwrap();
    }

    /// How often the program was started.
    pub fn starts(&self) -> usize {
        self.events().iter().filter(|e| e.what == "start").count()
    }

    /// Waits for the first restart: its reason, how the program ended, the time from the event that
    /// the program wrote down to its next life, and what the watchdog itself took for it.
    pub fn restart(&self, row: &str) -> Restart {
        let line = self.guard.wait_log("watchdog restart", |_| true);
        let (event, start) = (self.wait_event("event", 1), self.wait_event("start", 2));
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let restart = Restart {
            reason: text("reason"),
            program: text("program"),
            after: Duration::from_secs_f64((start.at - event.at).max(0.0)),
            own: text("after"),
            paused: line["paused"].as_bool().unwrap(),
        };
        println!(
            "S4 | {row} | {} | {} | event to the next life's first line {:?} | \
             end seen to restart {}",
            restart.reason, restart.program, restart.after, restart.own
        );
        restart
    }
}

/// See [`Guarded::restart`].
pub struct Restart {
    pub reason: String,
    pub program: String,
    pub after: Duration,
    pub own: String,
    pub paused: bool,
}
