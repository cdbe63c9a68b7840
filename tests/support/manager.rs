//! A service manager as far as its notify socket goes (sd_notify(3), systemd.service(5)): it takes
//! datagrams with the sender's credentials from the kernel, notes when each came, and judges beats
//! as systemd does: the deadline runs from READY=1, and from each WATCHDOG=1 anew.
#![allow(dead_code)] // each test file uses its own part

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ftpulse::clock::{self, Mono};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_passcred,
};

use super::support::{PATIENCE, temp_dir};

/// Ends the manager's own thread.
const END: &str = "X_END=1";

/// One datagram.
#[derive(Debug, Clone)]
pub struct Said {
    /// When it came.
    pub at: Mono,
    /// Who sent it, by the kernel's word.
    pub pid: u32,
    /// Assignments, one a line.
    pub text: String,
}

impl Said {
    /// Whether it has that line.
    pub fn has(&self, line: &str) -> bool {
        self.text.lines().any(|l| l == line)
    }

    /// The value of an assignment.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it is a software beat.
    pub fn beats(&self) -> bool {
        self.has("WATCHDOG=1")
    }

    /// Whether it is a pulse.
    pub fn pulses(&self) -> bool {
        self.has("X_FTPULSE_PULSE=1")
    }
}

#[derive(Default)]
struct Heard {
    said: Mutex<Vec<Said>>,
    grown: Condvar,
}

/// See the module.
pub struct Manager {
    _dir: tempfile::TempDir,
    path: PathBuf,
    heard: Arc<Heard>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Manager {
    /// Listens in a folder of its own.
    pub fn start() -> Self {
        let dir = temp_dir();
        let path = dir.path().join("notify");
        let (socket, heard) = (
            UnixDatagram::bind(&path).unwrap(),
            Arc::new(Heard::default()),
        );
        set_socket_passcred(&socket, true).unwrap();
        let ears = Arc::clone(&heard);
        let thread = std::thread::spawn(move || listen(&socket, &ears));
        let thread = Some(thread);
        Self {
            _dir: dir,
            path,
            heard,
            thread,
        }
    }

    /// What NOTIFY_SOCKET has to say.
    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// All that came so far.
    pub fn said(&self) -> Vec<Said> {
        self.heard.said.lock().unwrap().clone()
    }

    /// Waits for the first that fits, among those that came after `from`.
    pub fn wait_after(&self, from: Mono, what: &str, fits: impl Fn(&Said) -> bool) -> Said {
        let end = clock::mono() + PATIENCE;
        let mut said = self.heard.said.lock().unwrap();
        loop {
            if let Some(found) = said.iter().find(|s| s.at > from && fits(s)) {
                return found.clone();
            }
            let left = end.saturating_sub(clock::mono());
            assert!(!left.is_zero(), "never told: {what}; told: {said:#?}");
            said = self.heard.grown.wait_timeout(said, left).unwrap().0;
        }
    }

    /// The same among all.
    pub fn wait(&self, what: &str, fits: impl Fn(&Said) -> bool) -> Said {
        self.wait_after(Mono::ZERO, what, fits)
    }

    /// Waits until so many that fit came after `from`; answers them.
    pub fn wait_many(&self, from: Mono, count: usize, fits: impl Fn(&Said) -> bool) -> Vec<Said> {
        let fitting = || {
            let said = self.said().into_iter();
            said.filter(|s| s.at > from && fits(s)).collect::<Vec<_>>()
        };
        super::support::wait_for("so many are told", PATIENCE, || {
            Some(fitting()).filter(|said| said.len() >= count)
        })
    }

    /// The longest time without a beat from READY=1 up to `until`: over WatchdogSec systemd kills.
    pub fn longest_gap(&self, until: Mono) -> Duration {
        let said = self.said();
        let beats = said.iter().filter(|s| s.at < until);
        let beats = beats.filter(|s| s.beats() || s.has("READY=1"));
        let mut at: Vec<Mono> = beats.map(|s| s.at).collect();
        at.push(until);
        at.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let own = UnixDatagram::unbound().unwrap();
        own.send_to(END.as_bytes(), &self.path).unwrap();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(socket: &UnixDatagram, heard: &Heard) {
    loop {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(socket, &mut slices, &mut control, RecvFlags::empty()).unwrap();
        let at = clock::mono();
        let pid = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(of) => Some(of.pid.as_raw_nonzero().get()),
            _ => None,
        });
        let text = String::from_utf8(bytes[..got.bytes].to_vec()).unwrap();
        if text == END {
            return;
        }
        let pid = u32::try_from(pid.expect("the kernel names the sender")).unwrap();
        heard.said.lock().unwrap().push(Said { at, pid, text });
        heard.grown.notify_all();
    }
}
