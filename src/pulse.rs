//! The one object that a worker, its actor and the daemon share: the pulse cell (atomics that the
//! worker alone writes, but for the Ping number) and the fence around the worker's sockets.
//! Reading it never blocks and needs nobody's help; that is what makes a verdict possible.

mod attempt;
mod claims;
mod folder;
mod sabotage;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use rustix::event::PollFlags;

pub use attempt::{Attempt, Unwritten};
pub use claims::Claims;
pub use folder::Folder;
pub use sabotage::{Point, Sabotage};

use crate::clock::{self, Mono};
use crate::core::evidence::Sample;
use crate::core::names::Phase;
use crate::spool::journal::{Change, Done, Journal, Ticket};
use crate::sys::fence::{Fence, Woken};
use crate::sys::thread;

/// Why a worker may not go on with what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It was ended: it has to leave, without another step.
    Ended,
    /// Its phase is over its deadline: it drops the session and lives on.
    Timeout(Phase),
}

/// One worker's cell and fence. `epoch` never changes: a new worker gets a new handle.
pub struct WorkerHandle {
    /// The worker's number within its slot.
    pub epoch: u64,
    /// The fence around its sockets.
    pub fence: Arc<Fence>,
    sabotage: Sabotage,
    /// A look at the worker's thread, once it runs.
    watch: OnceLock<thread::Watch>,
    /// Phase number << 8 | phase.
    phase: AtomicU64,
    /// Microseconds of the monotonic clock; 0 for none.
    deadline: AtomicU64,
    bytes: AtomicU64,
    /// The transfer brings bytes.
    receives: AtomicBool,
    ping: AtomicU64,
    ack: AtomicU64,
    /// Whether the worker has a session, idle or not.
    session: AtomicBool,
}

impl WorkerHandle {
    /// A handle for the worker of `epoch`, which does not run yet.
    pub fn new(epoch: u64) -> io::Result<Self> {
        Ok(Self {
            epoch,
            fence: Arc::new(Fence::new()?),
            sabotage: Sabotage::default(),
            watch: OnceLock::new(),
            phase: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            receives: AtomicBool::new(false),
            ping: AtomicU64::new(0),
            ack: AtomicU64::new(0),
            session: AtomicBool::new(false),
        })
    }

    /// The same, in a service that may be sabotaged.
    #[must_use]
    pub fn sabotaged_by(self, sabotage: Sabotage) -> Self {
        Self { sabotage, ..self }
    }

    // ---- the worker's side ---------------------------------------------------------------

    /// A safe point: the worker answers the last Ping by being here.
    pub fn ack(&self) {
        self.ack.store(self.ping.load(SeqCst), SeqCst);
    }

    /// The worker begins its life, on its own thread.
    ///
    /// # Errors
    /// Its thread cannot be watched: no evidence but its sockets'.
    pub fn born(&self) -> io::Result<()> {
        let watch = thread::Watch::of_this_thread().map(|watch| drop(self.watch.set(watch)));
        self.pass(Point::Worker);
        watch
    }

    /// The worker, or a helper of it, passes a point of its work.
    pub fn pass(&self, point: Point) {
        self.sabotage.at_worker(point, self);
    }

    /// Enters a phase that has to be over after `bound`, if one is given.
    pub fn begin(&self, phase: Phase, bound: Option<Duration>) {
        let deadline = bound.map_or(0, |b| micros(clock::mono() + b));
        // The reader takes a deadline for true only between two equal readings of the phase.
        self.deadline.store(0, SeqCst);
        let number = self.fence.next_phase();
        self.phase
            .store(number << 8 | u64::from(phase as u8), SeqCst);
        self.deadline.store(deadline, SeqCst);
        self.ack();
    }

    /// A session came to be, or is gone.
    pub fn note_session(&self, stands: bool) {
        self.session.store(stands, SeqCst);
    }

    /// A job begins: its bytes count from zero.
    pub fn begin_job(&self) {
        self.bytes.store(0, SeqCst);
    }

    /// A transfer begins: its bytes count from zero.
    pub fn begin_transfer(&self, bound: Option<Duration>) {
        self.begin_moving(false, bound);
    }

    /// The same for one that brings bytes.
    pub fn begin_receiving(&self, bound: Option<Duration>) {
        self.begin_moving(true, bound);
    }

    fn begin_moving(&self, receives: bool, bound: Option<Duration>) {
        self.bytes.store(0, SeqCst);
        self.receives.store(receives, SeqCst);
        self.begin(Phase::Transfer, bound);
    }

    /// Bytes were handed to the kernel, or taken from it.
    pub fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, SeqCst);
        self.pass(Point::Transfer);
        self.ack();
    }

    /// Whether the worker may go on.
    pub fn check(&self) -> Result<(), Stop> {
        if self.fence.ended() {
            Err(Stop::Ended)
        } else if self.fence.interrupted() {
            Err(Stop::Timeout(self.phase()))
        } else {
            Ok(())
        }
    }

    /// Waits for one event on `fd` within the current phase: true when it came, false when
    /// `time` is over. Every wake-up is a safe point.
    pub fn wait(
        &self,
        fd: Option<(BorrowedFd<'_>, PollFlags)>,
        time: Option<Duration>,
    ) -> io::Result<Result<bool, Stop>> {
        let end = time.map(|t| clock::mono() + t);
        loop {
            if let Err(stop) = self.check() {
                return Ok(Err(stop));
            }
            let left = end.map(|end| end.saturating_sub(clock::mono()));
            match self.fence.wait(fd, left)? {
                Woken::Ready => return Ok(Ok(true)),
                Woken::Timeout => return Ok(self.check().map(|()| false)),
                Woken::Wake => self.ack(),
            }
        }
    }

    /// Writes a change to the journal and waits until it stands there. No wake-up is a safe point
    /// here: the journal's disk may hang, and a voucher with a bound of its own answers for that.
    ///
    /// # Errors
    /// The worker was stopped; or the change cannot be written.
    pub fn write(&self, journal: &Journal, change: Change) -> Result<Result<(), Unwritten>, Stop> {
        self.begin(Phase::LocalFile, None);
        let fence = Arc::clone(&self.fence);
        let ticket = Ticket::new(move || fence.wake());
        if !journal.put(change, Done::Ticket(Arc::clone(&ticket))) {
            return Ok(Err(Unwritten));
        }
        loop {
            self.check()?;
            if let Some(stands) = ticket.result() {
                return Ok(if stands { Ok(()) } else { Err(Unwritten) });
            }
            if self.fence.wait(None, None).is_err() {
                // Nothing is left to wait with: as good as unwritten.
                return Ok(Err(Unwritten));
            }
        }
    }

    // ---- everybody's side ----------------------------------------------------------------

    /// The worker's phase.
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(SeqCst) as u8).unwrap_or(Phase::Idle)
    }

    /// The number of the worker's phase, and when it has to be over.
    pub fn deadline(&self) -> (u64, Option<Mono>) {
        let before = self.phase.load(SeqCst);
        let deadline = self.deadline.load(SeqCst);
        let known = deadline != 0 && self.phase.load(SeqCst) == before;
        (before >> 8, known.then(|| Duration::from_micros(deadline)))
    }

    /// Bytes of the current transfer handed to the kernel.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    /// Whether the worker takes one of its destination's seats.
    pub fn has_session(&self) -> bool {
        self.session.load(SeqCst)
    }

    /// Takes the sample of a Ping, then stores its number: the sample judges the beat before.
    pub fn sample(&self, ping: u64) -> Sample {
        // A worker that answers needs no inquiry into its calls.
        let silent = self.ack.load(SeqCst) < ping.saturating_sub(1);
        let sample = self.look(silent);
        self.ping.store(ping, SeqCst);
        self.fence.wake();
        sample
    }

    /// Whether the worker has answered the last Ping that reached its cell: whoever is silent then
    /// is its actor, not it.
    pub fn answers(&self) -> bool {
        let ping = self.ping.load(SeqCst);
        ping > 0 && self.ack.load(SeqCst) >= ping
    }

    /// What the worker shows now, without any effect on it.
    pub fn look(&self, silent: bool) -> Sample {
        let acked = self.ack.load(SeqCst);
        let (phase_number, deadline) = self.deadline();
        let (control, data) = self.fence.sample();
        Sample {
            at: clock::mono(),
            acked,
            phase: self.phase(),
            phase_number,
            deadline,
            bytes: self.bytes(),
            receives: self.receives.load(SeqCst),
            control,
            data,
            thread: self.watch.get().and_then(|watch| watch.look(silent)),
        }
    }
}

fn micros(time: Mono) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The name look-ups of one route: one at a time, so that a resolver that never answers strands
/// one thread a route and not one an attempt. Also counts, over all routes, the threads that
/// outlived their deadline: they cannot be ended.
#[derive(Debug, Clone, Default)]
pub struct LookUps {
    stranded: Arc<AtomicUsize>,
    running: Arc<AtomicBool>,
}

impl LookUps {
    /// The same count, for another route.
    pub fn of_another_route(&self) -> Self {
        Self {
            stranded: Arc::clone(&self.stranded),
            running: Arc::default(),
        }
    }

    /// How many threads are left behind now, over all routes.
    pub fn stranded(&self) -> usize {
        self.stranded.load(SeqCst)
    }

    /// Takes the route's turn; false while another look-up has it.
    pub fn begin(&self) -> bool {
        !self.running.swap(true, SeqCst)
    }

    /// Gives the turn back.
    pub fn end(&self) {
        self.running.store(false, SeqCst);
    }

    /// One more is left behind.
    pub fn leave_behind(&self) {
        self.stranded.fetch_add(1, SeqCst);
    }

    /// One came to its end after all.
    pub fn came_back(&self) {
        self.stranded.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_answers_a_ping_at_its_next_safe_point() {
        let handle = WorkerHandle::new(1).unwrap();
        handle.begin(Phase::Idle, None);
        assert_eq!(handle.sample(1).acked, 0);
        assert_eq!(handle.sample(2).acked, 0);
        handle.ack();
        assert_eq!(handle.sample(3).acked, 2);
    }

    #[test]
    fn a_new_phase_hides_the_deadline_of_the_old_one() {
        let handle = WorkerHandle::new(1).unwrap();
        handle.begin(Phase::Reply, Some(Duration::from_secs(60)));
        let (first, deadline) = handle.deadline();
        assert!(deadline.is_some_and(|d| d > clock::mono()));
        handle.begin_transfer(None);
        assert_eq!(handle.deadline(), (first + 1, None));
        assert_eq!(handle.phase(), Phase::Transfer);
    }

    #[test]
    fn a_wait_in_an_interrupted_phase_tells_the_phase() {
        let handle = WorkerHandle::new(1).unwrap();
        handle.begin(Phase::Dns, Some(Duration::ZERO));
        handle.fence.interrupt(handle.deadline().0);
        assert_eq!(
            handle.wait(None, None).unwrap(),
            Err(Stop::Timeout(Phase::Dns))
        );
        handle.begin(Phase::Idle, None);
        assert_eq!(handle.check(), Ok(()));
    }
}
