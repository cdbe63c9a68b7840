//! The processes of the watched program: its start with an environment of its own, its main process
//! (which `MAINPID=` may move to a descendant), who of all processes belongs to it, and its end with
//! all that stands in its process groups.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use super::service::{INTERVALS, socket::told};
use super::upwards::VARIABLES;
use crate::core::Mono;
use crate::core::watch::{Exit, Terms};
use crate::sys::process::{Child, Group, Launch, descends};

/// How long a start waits for what the life before left in its groups. What stands there longer is
/// no copy of the main process, which is known to be gone.
const LEFT_OVERS: Duration = Duration::from_secs(5);
/// Nothing tells that a group is empty: it is looked at this often.
const LOOK: Duration = Duration::from_millis(10);

/// The program that is watched.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it is, or its name in PATH.
    pub path: OsString,
    /// Its arguments, its own name (the first) included.
    pub argv: Vec<OsString>,
    /// An argument more until a life was ready: a consent that is given once.
    pub once: Option<OsString>,
    /// It is this service, which sends both kinds of beat.
    pub own: bool,
}

impl Program {
    /// How it is started when its messages come to `socket`: it is told how it is judged.
    fn launch(&self, socket: &str, terms: &Terms) -> Launch {
        let inherited = std::env::vars_os();
        let kept = inherited.filter(|(name, _)| !VARIABLES.iter().any(|own| name == own));
        let mut env: Vec<(OsString, OsString)> = kept.collect();
        env.push(("NOTIFY_SOCKET".into(), socket.into()));
        env.push(if self.own {
            // A file that was edited meanwhile is read by its next life, not by this process.
            let value = told(terms.pulse_interval, terms.software_interval);
            (INTERVALS.into(), value)
        } else {
            let silence = terms.interval.saturating_mul(terms.misses + 1);
            let value = silence.as_micros().to_string();
            ("WATCHDOG_USEC".into(), value.into())
        });
        Launch {
            program: self.path.clone(),
            argv: self.argv.iter().chain(&self.once).cloned().collect(),
            env,
            own_pid: "WATCHDOG_PID",
        }
    }
}

/// What runs, and what the life before left.
#[derive(Debug, Default)]
pub struct Processes {
    main: Option<Child>,
    groups: Vec<Group>,
    ended: Mono,
}

impl Processes {
    /// The main process, from its start until its end was read.
    pub fn main(&self) -> Option<&Child> {
        self.main.as_ref()
    }

    /// Starts the program.
    ///
    /// # Errors
    /// What fork(2) and execve(2) say.
    pub fn start(&mut self, program: &Program, socket: &str, terms: &Terms) -> io::Result<u32> {
        let child = Child::start(&program.launch(socket, terms))?;
        let pid = child.pid();
        self.groups = child.group().into_iter().collect();
        self.main = Some(child);
        Ok(pid)
    }

    /// Until when a start has to wait for what was left; none: it need not.
    pub fn left_overs(&self, now: Mono) -> Option<Mono> {
        let waits = now < self.ended + LEFT_OVERS && self.groups.iter().any(|g| g.is_left());
        waits.then_some(now + LOOK)
    }

    /// Whether a message of this process counts: it is the main one, or descends from it.
    pub fn own(&self, sender: Option<u32>) -> bool {
        let main = self.main.as_ref().map(Child::pid);
        main.zip(sender)
            .is_some_and(|(main, sender)| descends(sender, main))
    }

    /// Moves the watch to another process of the program (`MAINPID=`), told by one of them.
    ///
    /// # Errors
    /// Why not, in words; everything stays as it was.
    pub fn move_to(&mut self, pid: u32, sender: Option<u32>) -> Result<bool, String> {
        if self.main.as_ref().is_none_or(|main| main.pid() == pid) {
            return Ok(false);
        }
        let guard = std::process::id();
        let ours = |pid| pid != guard && descends(pid, guard);
        if !sender.is_some_and(ours) {
            return Err("it is told by a stranger".to_owned());
        }
        let child = Child::adopt(pid).map_err(|error| error.to_string())?;
        // Asked of the process that the descriptor holds.
        if !ours(pid) {
            return Err("it is none of the program's processes".to_owned());
        }
        // An id of a group that is gone may become somebody else's.
        self.groups.retain(|group| group.is_left());
        if let Some(group) = child.group().filter(|group| !self.groups.contains(group)) {
            self.groups.push(group);
        }
        self.main = Some(child);
        Ok(true)
    }

    /// How the main process ended, if it did; what it left behind is killed.
    pub fn ended(&mut self, now: Mono) -> Option<Exit> {
        let exit = self.main.as_ref()?.ended()?;
        self.main = None;
        self.ended = now;
        self.groups.iter().for_each(|group| group.kill());
        Some(exit)
    }

    /// Passes a signal on to the main process alone.
    pub fn signal(&self, number: i32) {
        if let Some(main) = &self.main {
            main.signal(number);
        }
    }

    /// Kills the main process and all that stands in the program's groups.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
        self.groups.iter().for_each(|group| group.kill());
    }
}
