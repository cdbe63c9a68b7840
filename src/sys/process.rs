//! Processes as their guard sees them: started in a group of their own and tied to the guard's
//! life, watched and killed through descriptors that no reused number can mislead (pidfd), reaped;
//! and the guard's own signals, read from a descriptor.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
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

/// A watched process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    fd: OwnedFd,
}

impl Child {
    /// Starts a program in a process group of its own, with no signal blocked or ignored; it gets
    /// SIGTERM when the calling thread ends.
    ///
    /// # Errors
    /// What fork(2) and execve(2) say.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let guard = getpid();
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe functions are called: sigemptyset,
        // sigaction's wrapper, pthread_sigmask, prctl and getppid; nothing allocates.
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
                Ok(())
            });
        }
        let child = command.spawn()?;
        let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = number.ok_or(Errno::SRCH)?;
        // Its number is its own until we have reaped it.
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, fd })
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
    match (number(status.exit_status()), number(status.terminating_signal())) {
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

/// Gives memory back that the start needed and nothing needs any more.
pub fn shed_memory() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
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
    use std::process::Stdio;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    fn end_of(child: &Child) -> Exit {
        let mut fds = [PollFd::new(child, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        child.ended().unwrap()
    }

    #[test]
    fn an_end_is_told_with_its_code_or_signal_and_only_once() {
        let child = Child::start(&mut sh("exit 3")).unwrap();
        assert_eq!(end_of(&child), Exit::Code(3));
        assert_eq!(child.ended(), Some(Exit::Unknown));
        let child = Child::start(&mut sh("kill -SEGV $$")).unwrap();
        assert_eq!(end_of(&child), Exit::Signal(11));
        let child = Child::start(&mut sh("sleep 600")).unwrap();
        child.signal(libc::SIGUSR1);
        assert_eq!(end_of(&child), Exit::Signal(10));
    }

    #[test]
    fn a_group_is_killed_whole_and_never_our_own() {
        let mut command = sh("sleep 600 & sleep 600");
        let child = Child::start(&mut command).unwrap();
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
        let child = Child::start(&mut sh("sleep 600")).unwrap();
        assert!(descends(child.pid(), own) && !descends(own, child.pid()));
        child.signal(libc::SIGKILL);
        assert_eq!(end_of(&child), Exit::Signal(9));
        assert_eq!(state(child.pid()), None);
    }

    #[test]
    fn a_command_that_is_none_is_told() {
        let error = Child::start(&mut Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(Child::adopt(u32::MAX).is_err() && Child::adopt(0).is_err());
    }

    #[test]
    fn a_child_has_its_signals_as_they_are_by_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        command.stdout(file.reopen().unwrap());
        let child = Child::start(&mut command).unwrap();
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
