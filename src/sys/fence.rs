//! The local fence of one worker: how its sockets are watched, its waits ended, and its hands
//! tied for ever, from outside and without blocking. It owns the keepers (duplicates made before
//! connect), the only descriptors that evidence and quarantine ever touch.
//!
//! The one hard thing: a blocked socket call can be ended only from its own thread, because a
//! descriptor number may be closed and reused at any moment. So the daemon sends a signal, and the
//! *worker's own handler* lays a dead descriptor over each registered number whose SO_COOKIE still
//! matches. The interrupted call, or the next one, hits the dead descriptor and fails at once,
//! while the stranded connection stays open and untouched in its keeper.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{socket, thread};
use crate::core::evidence::{Socket, tcp};

/// The sockets of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Which {
    /// The control connection.
    Control = 0,
    /// The data connection.
    Data = 1,
}

/// The stranded sockets of an ended worker.
#[derive(Debug, Default)]
pub struct Pair {
    /// The control connection.
    pub control: Option<OwnedFd>,
    /// The data connection.
    pub data: Option<OwnedFd>,
}

impl Pair {
    /// Without a socket that is still connecting: it is closed, as it has nothing that could be
    /// stranded.
    #[must_use]
    pub fn connected(self) -> Self {
        let stands = |fd: &OwnedFd| {
            socket::sample(fd.as_fd())
                .is_some_and(|s| s.state != tcp::SYN_SENT && s.state != tcp::CLOSE)
        };
        Self {
            control: self.control.filter(stands),
            data: self.data.filter(stands),
        }
    }

    /// Releases the sockets, data first: the peer sees a reset, and what was not sent is gone.
    pub fn reset(self) {
        for fd in [self.data, self.control].into_iter().flatten() {
            // A socket that the peer has reset already cannot be reset again; it is closed here.
            let _ = socket::reset(fd.as_fd());
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The descriptor is ready (or has an error to be read).
    Ready,
    /// Somebody wrote to the wake descriptor, or a signal came: look at the flags.
    Wake,
    /// The time is over.
    Timeout,
}

/// The worker was ended or its phase interrupted: no further step may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// A number that the worker uses and the identity of what it was given it for.
#[derive(Default)]
struct Registered {
    number: AtomicI32,
    cookie: AtomicU64,
}

/// The fence of one worker (one epoch of one slot).
pub struct Fence {
    kill: AtomicBool,
    /// The number of the phase that the daemon found overdue; 0 for none.
    interrupt: AtomicU64,
    /// The number of the phase that the worker is in, from 1; written by the worker alone.
    phase: AtomicU64,
    registered: [Registered; 2],
    /// The one lock of the house: `end` must take the keepers in the same moment in which `kill`
    /// becomes true, or a socket made just then would escape the quarantine. Held for a few
    /// system calls that cannot block.
    keepers: Mutex<Pair>,
    wake: OwnedFd,
    thread: AtomicI32,
    finished: AtomicBool,
}

thread_local! {
    // Const-initialised and without a destructor: reading it is safe in a signal handler.
    static CURRENT: Cell<*const Fence> = const { Cell::new(ptr::null()) };
}

/// The dead descriptor: one end of a socket pair whose other end is closed.
static DEAD: AtomicI32 = AtomicI32::new(-1);

fn signal() -> libc::c_int {
    // Not used by anybody else; the lowest real-time signals belong to libc.
    libc::SIGRTMIN() + 5
}

/// Prepares this process: the dead descriptor, the handler, and no death by SIGIO (file leases).
/// Called before the first worker; further calls do nothing.
pub fn install() -> io::Result<()> {
    static ONCE: OnceLock<Result<(), i32>> = OnceLock::new();
    ONCE.get_or_init(|| install_once().map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL)))
        .map_err(io::Error::from_raw_os_error)
}

fn install_once() -> io::Result<()> {
    let (dead, _closed) = UnixStream::pair()?;
    // It stays open for the life of the process: the handler may need it at any moment.
    DEAD.store(dead.into_raw_fd(), SeqCst);
    // SAFETY: `action` is a valid sigaction with an empty mask and no SA_RESTART (so that the
    // interrupted call returns); `on_signal` only does what is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(signal(), &action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::signal(libc::SIGIO, libc::SIG_IGN) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: __errno_location gives this thread's errno, always valid.
    let errno = unsafe { *libc::__errno_location() };
    let current = CURRENT.with(Cell::get);
    if !current.is_null() {
        // SAFETY: `Attached` sets the pointer to a Fence that its thread keeps alive through an
        // Arc, and clears it before that Arc goes.
        unsafe { &*current }.lay_dead();
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Marks the calling thread as the worker of a fence, until dropped.
pub struct Attached(std::sync::Arc<Fence>);

impl Drop for Attached {
    fn drop(&mut self) {
        CURRENT.with(|c| c.set(ptr::null()));
        self.0.finished.store(true, SeqCst);
    }
}

impl Fence {
    /// A fence without a thread and without sockets.
    pub fn new() -> io::Result<Self> {
        install()?;
        Ok(Self {
            kill: AtomicBool::new(false),
            interrupt: AtomicU64::new(0),
            phase: AtomicU64::new(0),
            registered: Default::default(),
            keepers: Mutex::new(Pair::default()),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            thread: AtomicI32::new(0),
            finished: AtomicBool::new(false),
        })
    }

    fn keepers(&self) -> MutexGuard<'_, Pair> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the worker's side -------------------------------------------------------------

    /// The calling thread becomes the worker.
    pub fn attach(self: &std::sync::Arc<Self>) -> Attached {
        self.thread.store(thread::id(), SeqCst);
        CURRENT.with(|c| c.set(std::sync::Arc::as_ptr(self)));
        Attached(std::sync::Arc::clone(self))
    }

    /// Enters the next phase and returns its number: an interrupt of an older one is void.
    pub fn next_phase(&self) -> u64 {
        self.phase.fetch_add(1, SeqCst) + 1
    }

    /// Registers a socket before it is connected: keeper first, then identity, then number.
    pub fn keep(&self, which: Which, fd: BorrowedFd<'_>) -> io::Result<Result<(), Stopped>> {
        let keeper = fd.try_clone_to_owned()?;
        let mut keepers = self.keepers();
        if self.kill.load(SeqCst) {
            return Ok(Err(Stopped));
        }
        let place = &self.registered[which as usize];
        place.number.store(-1, SeqCst);
        place.cookie.store(socket::cookie(fd.as_raw_fd()), SeqCst);
        place.number.store(fd.as_raw_fd(), SeqCst);
        match which {
            Which::Control => keepers.control = Some(keeper),
            Which::Data => keepers.data = Some(keeper),
        }
        Ok(Ok(()))
    }

    /// Lets a keeper go at the normal end of a connection.
    pub fn release(&self, which: Which) {
        let mut keepers = self.keepers();
        match which {
            Which::Control => keepers.control = None,
            Which::Data => keepers.data = None,
        }
    }

    /// The error end of a connection, data first: a reset through the keeper, a dead descriptor
    /// over the worker's own number (dropping suppaftp's streams must not block), keeper gone.
    /// Does nothing to sockets that were taken for the quarantine.
    pub fn abandon(&self, which: Which) {
        let mut keepers = self.keepers();
        let keeper = match which {
            Which::Control => keepers.control.take(),
            Which::Data => keepers.data.take(),
        };
        if let Some(keeper) = keeper {
            // Only an unconnected socket refuses; closing it is all that is left to do.
            let _ = socket::reset(keeper.as_fd());
        }
        drop(keepers);
        self.lay_dead_over(which);
    }

    /// Whether the worker has been ended.
    pub fn ended(&self) -> bool {
        self.kill.load(SeqCst)
    }

    /// Whether the current phase has been interrupted.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(SeqCst) == self.phase.load(SeqCst)
    }

    /// Whether no further step may be taken.
    pub fn stopped(&self) -> bool {
        self.ended() || self.interrupted()
    }

    /// Waits until `fd` shows one of `events`, the wake descriptor is written, a signal comes or
    /// the time is over.
    pub fn wait(
        &self,
        fd: Option<(BorrowedFd<'_>, PollFlags)>,
        time: Option<Duration>,
    ) -> io::Result<Woken> {
        self.wait_any(fd.as_slice(), time).map(|(woken, _)| woken)
    }

    /// The same for up to two descriptors; also tells which of them is ready. The only way in which
    /// a worker waits outside socket calls.
    pub fn wait_any(
        &self,
        fds: &[(BorrowedFd<'_>, PollFlags)],
        time: Option<Duration>,
    ) -> io::Result<(Woken, usize)> {
        let wake = || PollFd::new(&self.wake, PollFlags::IN);
        let mut polled = [wake(), wake(), wake()];
        for (place, (fd, events)) in polled[1..].iter_mut().zip(fds) {
            *place = PollFd::from_borrowed_fd(*fd, *events);
        }
        let time = time.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let used = &mut polled[..=fds.len().min(2)];
        match poll(used, time.as_ref()) {
            Ok(0) => Ok((Woken::Timeout, 0)),
            Ok(_) => {
                let ready = used[1..].iter().position(|fd| !fd.revents().is_empty());
                if let Some(ready) = ready {
                    return Ok((Woken::Ready, ready));
                }
                // Reading resets the counter; an error can only mean that it is 0 already.
                let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
                Ok((Woken::Wake, 0))
            }
            Err(rustix::io::Errno::INTR) => Ok((Woken::Wake, 0)),
            Err(error) => Err(error.into()),
        }
    }

    // ---- the daemon's and the actor's side -----------------------------------------------

    /// Wakes the worker if it waits in `wait`.
    pub fn wake(&self) {
        // The only possible error is a full counter, and then the worker is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Ends the worker for ever and returns its sockets, which stay open and untouched.
    pub fn end(&self) -> Pair {
        let pair = {
            let mut keepers = self.keepers();
            self.kill.store(true, SeqCst);
            std::mem::take(&mut *keepers)
        };
        self.poke();
        pair
    }

    /// Sends the signal again to a worker that was ended or interrupted and has not come back.
    pub fn poke(&self) {
        self.wake();
        let id = self.thread.load(SeqCst);
        if id > 0 && !self.finished.load(SeqCst) {
            // SAFETY: tgkill takes plain numbers. A thread that ended meanwhile gives ESRCH; if
            // its number was reused, that is a thread of this process whose handler finds no
            // fence, or one that is not ended, and does nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, signal()) };
        }
    }

    /// Ends the wait of phase `number`, if the worker is still in it.
    pub fn interrupt(&self, number: u64) {
        self.interrupt.store(number, SeqCst);
        self.poke();
    }

    /// The number of the phase that was interrupted last.
    pub fn last_interrupt(&self) -> u64 {
        self.interrupt.load(SeqCst)
    }

    /// The number of the worker's current phase.
    pub fn phase(&self) -> u64 {
        self.phase.load(SeqCst)
    }

    /// The worker's thread number; 0 before it runs.
    pub fn thread(&self) -> i32 {
        self.thread.load(SeqCst)
    }

    /// Whether the worker's thread has come to its end.
    pub fn finished(&self) -> bool {
        self.finished.load(SeqCst)
    }

    /// What both sockets show now.
    pub fn sample(&self) -> (Option<Socket>, Option<Socket>) {
        let keepers = self.keepers();
        let look = |fd: &Option<OwnedFd>| fd.as_ref().and_then(|fd| socket::sample(fd.as_fd()));
        (look(&keepers.control), look(&keepers.data))
    }

    // ---- the handler's side: async-signal-safe, atomics and system calls only -------------

    fn lay_dead(&self) {
        if self.stopped() {
            self.lay_dead_over(Which::Control);
            self.lay_dead_over(Which::Data);
        }
    }

    /// Only ever called on the worker's own thread: nobody else may judge its numbers.
    fn lay_dead_over(&self, which: Which) {
        let place = &self.registered[which as usize];
        let (number, cookie) = (place.number.load(SeqCst), place.cookie.load(SeqCst));
        let dead = DEAD.load(SeqCst);
        if number >= 0 && cookie != 0 && dead >= 0 && socket::cookie(number) == cookie {
            // SAFETY: both are plain numbers; `number` is this thread's own socket, as its
            // identity was just compared on the only thread that closes it.
            unsafe { libc::dup3(dead, number, libc::O_CLOEXEC) };
        }
    }
}

#[cfg(test)]
mod tests;
