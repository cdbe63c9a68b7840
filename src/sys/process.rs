//! Processes as their guard sees them: started in a group of their own and tied to the guard's
//! life, watched and killed through descriptors that no reused number can mislead (pidfd), reaped;
//! and the guard's own signals, read from a descriptor.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpgid, getpid, getppid,
    kill_process_group, pidfd_open, pidfd_send_signal, set_child_subreaper,
    set_parent_process_death_signal, test_kill_process_group, waitid,
};

use crate::core::watch::Exit;

/// What a guard reads instead of being interrupted.
const SIGNALS: &[libc::c_int] = &[
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGQUIT,
    libc::SIGWINCH,
    libc::SIGCONT,
    libc::SIGCHLD,
];

/// The signals of this process, read from a descriptor (signalfd(2)).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Takes them over for the calling thread and those that it starts from now on.
    ///
    /// # Errors
    /// What signalfd(2) and pthread_sigmask(3) say.
    pub fn take_over() -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before anything reads it; all calls take
        // pointers that are valid for the whole call; SIG_DFL is a valid disposition.
        let fd = unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in SIGNALS {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            // Ignored, it would let children vanish with their exit codes.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            let refused =
                libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if refused != 0 {
                return Err(io::Error::from_raw_os_error(refused));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of one that came; none: no more.
    pub fn next(&self) -> Option<i32> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut info));
        let number = info.first_chunk().filter(|_| read.is_ok_and(|n| n > 0))?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes this process the parent of all orphans below it, as PID 1 is anyway.
///
/// # Errors
/// What prctl(2) says.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program; looked for in PATH where it has no slash.
    pub program: OsString,
    /// Its arguments, its own name (the first) included.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The variable that shall hold its own process id.
    pub own_pid: &'static str,
}

/// A launch as execve(2) takes it: made before the fork, since nothing may allocate after it.
struct Ready {
    program: CString,
    /// What the addresses below point to.
    _texts: Vec<CString>,
    /// Addresses of texts, 0 at the end. Not pointers: those may not change threads.
    argv: Vec<usize>,
    envp: Vec<usize>,
    /// `NAME=` and room for a number and its end.
    own_pid: Vec<u8>,
    digits_at: usize,
}

impl Ready {
    fn new(launch: &Launch) -> io::Result<Self> {
        let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::from);
        let program = text(launch.program.as_bytes().to_vec())?;
        let mut texts = Vec::new();
        let mut argv = Vec::new();
        for arg in &launch.argv {
            let arg = text(arg.as_bytes().to_vec())?;
            argv.push(arg.as_ptr() as usize);
            texts.push(arg);
        }
        argv.push(0);
        let mut envp = Vec::new();
        for (name, value) in &launch.env {
            let pair = text([name.as_bytes(), b"=", value.as_bytes()].concat())?;
            envp.push(pair.as_ptr() as usize);
            texts.push(pair);
        }
        let mut own_pid = format!("{}=", launch.own_pid).into_bytes();
        let digits_at = own_pid.len();
        own_pid.resize(digits_at + 12, 0);
        envp.push(own_pid.as_ptr() as usize);
        envp.push(0);
        Ok(Self {
            program,
            _texts: texts,
            argv,
            envp,
            own_pid,
            digits_at,
        })
    }

    /// Becomes the program; returns why it does not. Called between fork and exec: allocates nothing.
    fn exec(&mut self) -> io::Error {
        let mut rest = getpid().as_raw_nonzero().get();
        let mut count = 1;
        while rest >= 10_i32.pow(count) && count < 9 {
            count += 1;
        }
        let digits = self.own_pid.iter_mut().skip(self.digits_at);
        for digit in digits.take(count as usize).rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        // SAFETY: both arrays hold addresses of texts that end with 0 and live as long as `self`
        // does (the heap they stand on does not move with it), and a 0 at their end.
        unsafe {
            libc::execvpe(
                self.program.as_ptr(),
                self.argv.as_ptr().cast(),
                self.envp.as_ptr().cast(),
            );
        }
        io::Error::last_os_error()
    }
}

/// A watched process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    fd: OwnedFd,
}

impl Child {
    /// Starts a program in a process group of its own, with no signal blocked or ignored; it gets
    /// SIGTERM when the calling thread ends. Its environment is `launch.env` and, if asked for, a
    /// variable that holds its own process id.
    ///
    /// # Errors
    /// What fork(2) and execve(2) say.
    pub fn start(launch: &Launch) -> io::Result<Self> {
        let guard = getpid();
        let mut ready = Ready::new(launch)?;
        // Only for the fork, the wait for exec and the report of its error: exec itself is below.
        let mut command = Command::new(&launch.program);
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe functions are called: signal,
        // sigemptyset, pthread_sigmask, prctl, getppid, getpid and execvpe, which is as safe as the
        // execvp that would follow; nothing allocates.
        unsafe {
            command.pre_exec(move || {
                for signal in 1..=64 {
                    // KILL, STOP and those of the library itself refuse it, which is as well.
                    libc::signal(signal, libc::SIG_DFL);
                }
                let mut none = MaybeUninit::uninit();
                libc::sigemptyset(none.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
                set_parent_process_death_signal(Some(Signal::TERM))?;
                // It may have died before the line above.
                if getppid() != Some(guard) {
                    return Err(Errno::SRCH.into());
                }
                Err(ready.exec())
            });
        }
        Self::hold(command.spawn()?, |pid| pidfd_open(pid, PidfdFlags::empty()))
    }

    /// Takes a started process into the guard's hands. One that cannot be held must not run: the
    /// next start would be a second copy beside it.
    fn hold(
        mut child: std::process::Child,
        open: impl FnOnce(Pid) -> rustix::io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = number.ok_or(Errno::SRCH)?;
        // Its number is its own until we have reaped it.
        match open(pid) {
            Ok(fd) => Ok(Self { pid, fd }),
            Err(error) => {
                // It has just begun, in a group of its own: nothing of it is worth an orderly end.
                Group(pid).kill();
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    /// A process that somebody else has started, such as the one named by `MAINPID=`.
    ///
    /// # Errors
    /// It is gone, or no process.
    pub fn adopt(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(Errno::SRCH)?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, fd })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended; none: it has not. Asked again after that, nobody knows.
    pub fn ended(&self) -> Option<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.fd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => None,
            Ok(Some(status)) => Some(exit_of(&status)),
            // Not our child (yet): the descriptor tells that it ended, nobody tells how.
            Err(_) => {
                let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
                let at_once = Timespec::default();
                let told = poll(&mut fds, Some(&at_once)).is_ok_and(|n| n > 0);
                told.then_some(Exit::Unknown)
            }
        }
    }

    /// Sends it a signal; one that has ended already is no error.
    pub fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // What cannot be signalled (another user's) is told by what does not happen.
            let _ = pidfd_send_signal(&self.fd, signal);
        }
    }

    /// Its process group; none if that is the guard's own, or gone.
    pub fn group(&self) -> Option<Group> {
        let group = getpgid(Some(self.pid)).ok()?;
        let own = getpgid(None).ok()?;
        (group != own && group != Pid::INIT).then_some(Group(group))
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    let number = |raw: Option<i32>| raw.and_then(|raw| u8::try_from(raw & 0xff).ok());
    match (
        number(status.exit_status()),
        number(status.terminating_signal()),
    ) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// A process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group(Pid);

impl Group {
    /// Kills all that is in it.
    pub fn kill(self) {
        // A group that is gone already is what was wanted.
        let _ = kill_process_group(self.0, Signal::KILL);
    }

    /// Whether anything is left in it.
    pub fn is_left(self) -> bool {
        test_kill_process_group(self.0) != Err(Errno::SRCH)
    }
}

/// Reaps every child that has ended, but for the main one, whose end its watcher reads. Returns how
/// many.
pub fn reap_orphans(main: Option<&Child>) -> usize {
    let mut count = 0;
    while let Some(pid) = first_ended(libc::P_ALL, 0, libc::WNOWAIT) {
        // Others may stand behind it; they are reaped once it is.
        if main.is_some_and(|main| main.pid.as_raw_nonzero().get() == pid) {
            break;
        }
        let Ok(id) = libc::id_t::try_from(pid) else {
            break;
        };
        if first_ended(libc::P_PID, id, 0).is_none() {
            break;
        }
        count += 1;
    }
    count
}

fn first_ended(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> Option<i32> {
    let options = libc::WEXITED | libc::WNOHANG | options;
    // SAFETY: `siginfo_t` is a plain struct for which all zero is a value; the pointer is valid for
    // the whole call; si_pid is read after waitid filled it in, or of that zeroed value.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let answer = libc::waitid(kind, id, &raw mut info, options);
        (answer == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}

/// A loop among parents is impossible; a walk beside changing ones must end all the same.
const GENERATIONS: usize = 256;

/// Whether a process is `ancestor` or one of its descendants, as /proc tells at this moment.
pub fn descends(pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    for _ in 0..GENERATIONS {
        if at == ancestor {
            return true;
        }
        match parent(at) {
            Some(parent) if parent > 0 => at = parent,
            _ => return false,
        }
    }
    false
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, `)` and bytes that are no text included.
    let behind = stat.rsplit(|byte| *byte == b')').next()?;
    let mut fields = std::str::from_utf8(behind).ok()?.split_ascii_whitespace();
    fields.nth(1)?.parse().ok()
}

/// The state letter of a process (proc_pid_stat(5)); none if it is gone.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind = stat.rsplit(|byte| *byte == b')').next()?;
    let text = std::str::from_utf8(behind).ok()?;
    text.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Launch {
        Launch {
            program: "sh".into(),
            argv: ["sh", "-c", script].map(OsString::from).to_vec(),
            env: std::env::vars_os().collect(),
            own_pid: "WATCHDOG_PID",
        }
    }

    fn end_of(child: &Child) -> Exit {
        let mut fds = [PollFd::new(child, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        child.ended().unwrap()
    }

    #[test]
    fn an_end_is_told_with_its_code_or_signal_and_only_once() {
        let child = Child::start(&sh("exit 3")).unwrap();
        assert_eq!(end_of(&child), Exit::Code(3));
        assert_eq!(child.ended(), Some(Exit::Unknown));
        let child = Child::start(&sh("kill -SEGV $$")).unwrap();
        assert_eq!(end_of(&child), Exit::Signal(11));
        let child = Child::start(&sh("exec sleep 600")).unwrap();
        child.signal(libc::SIGUSR1);
        assert_eq!(end_of(&child), Exit::Signal(10));
    }

    #[test]
    fn a_group_is_killed_whole_and_never_our_own() {
        let child = Child::start(&sh("sleep 600 & sleep 600")).unwrap();
        let group = child.group().unwrap();
        assert_eq!(child.ended(), None);
        assert!(group.is_left());
        group.kill();
        assert_eq!(end_of(&child), Exit::Signal(9));
        let own = Child::adopt(std::process::id()).unwrap();
        assert_eq!(own.group(), None);
    }

    #[test]
    fn a_descendant_is_told_from_a_stranger() {
        let own = std::process::id();
        assert!(descends(own, own));
        assert!(!descends(own, u32::MAX));
        assert!(!descends(u32::MAX, own));
        let child = Child::start(&sh("exec sleep 600")).unwrap();
        assert!(descends(child.pid(), own) && !descends(own, child.pid()));
        child.signal(libc::SIGKILL);
        assert_eq!(end_of(&child), Exit::Signal(9));
        assert_eq!(state(child.pid()), None);
    }

    #[test]
    fn a_command_that_is_none_is_told() {
        let error = Child::start(&Launch {
            program: "/no/such/program".into(),
            ..sh("")
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(Child::adopt(u32::MAX).is_err() && Child::adopt(0).is_err());
    }

    #[test]
    fn a_program_that_cannot_be_held_does_not_run_on() {
        let mut command = Command::new("sleep");
        let child = command.arg("600").process_group(0).spawn().unwrap();
        let pid = child.id();
        assert!(state(pid).is_some());
        let error = Child::hold(child, |_| Err(Errno::MFILE)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert_eq!(state(pid), None, "killed and reaped");
    }

    #[test]
    fn a_child_has_its_signals_as_they_are_by_default_and_knows_its_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "test $WATCHDOG_PID = $$ && exec cat /proc/self/status >{}",
            file.path().display()
        );
        let child = Child::start(&sh(&script)).unwrap();
        assert_eq!(end_of(&child), Exit::Code(0));
        let status = fs::read_to_string(file.path()).unwrap();
        // 32 and 33 are the C library's own, which lets nobody touch them.
        const OWN: u64 = 0b11 << 31;
        for field in ["SigBlk:", "SigIgn:"] {
            let set = status.lines().find_map(|line| line.strip_prefix(field));
            let set = u64::from_str_radix(set.unwrap().trim(), 16).unwrap();
            assert_eq!(set & !OWN, 0, "{field} {set:x}");
        }
    }
}
