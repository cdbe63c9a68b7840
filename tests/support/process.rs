//! Child processes that cannot outlive the test: killed with all their descendants on drop,
//! and by the kernel when the test process itself is killed.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{PATIENCE, wait_for};

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// A command for `program` that dies with this process, in a process group of its own.
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .process_group(0);
    command
}

/// Starts a `tied` command. The kernel sends the death signal when the *thread* that forked
/// ends, so one thread that lives as long as the process does all the forking.
pub fn spawn(command: Command) -> io::Result<Running> {
    static NURSE: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let nurse = NURSE.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("nurse".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    let _ = answer.send(command.spawn());
                }
            })
            .unwrap();
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    nurse.lock().unwrap().send((command, answer)).unwrap();
    Ok(Running {
        child: child.recv().unwrap()?,
    })
}

/// A started process and everything it starts.
pub struct Running {
    /// The process itself; its pipes may be taken.
    pub child: Child,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        wait_for("the process ends", bound, || self.child.try_wait().unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// All its descendants, without itself.
    pub fn descendants(&self) -> Vec<u32> {
        descendants(self.pid())
    }

    /// Ends it and its descendants at once, and waits for its end.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            send(self.pid(), Signal::STOP); // or it could fork while its children are counted
            let children = self.descendants();
            let _ = kill_process_group(raw(self.pid()), Signal::KILL);
            children.into_iter().for_each(|pid| send(pid, Signal::KILL));
        }
        wait_for("a killed process is gone", PATIENCE, || {
            self.child.try_wait().unwrap()
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Sends a signal; a process that is gone is no error.
pub fn send(pid: u32, signal: Signal) {
    let _ = kill_process(raw(pid), signal);
}

/// All descendants of a process.
pub fn descendants(of: u32) -> Vec<u32> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // "pid (comm) state ppid": comm may hold anything, so count from the last ')'.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        if let Some(parent) = after
            .split_whitespace()
            .nth(1)
            .and_then(|p| p.parse::<u32>().ok())
        {
            links.push((parent, pid));
        }
    }
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            links
                .iter()
                .filter(|(p, _)| *p == parent)
                .map(|(_, pid)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}
