//! Threads as the system sees them: their number, their nice value, and what they are doing.

use std::fs::{self, File};
use std::io;

use crate::core::evidence::{Call, Thread};
use crate::report::ThreadReport;

/// By how much a worker is nicer than the daemon: the daemon's priority is higher (S1.7), on any
/// number of cores, however nice the whole process was started.
pub const WORKER_NICER: i32 = 5;
/// The kernel knows none above.
const NICEST: i32 = 19;

/// The calling thread's number.
pub fn id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Lowers the calling thread's priority below the one it was started with. Works without
/// privileges and cannot be taken back.
pub fn lower_priority() -> io::Result<()> {
    let thread = Some(rustix::thread::gettid());
    // A fixed value would raise the priority of a process that was started nicer still.
    let inherited = rustix::process::getpriority_process(thread)?;
    let nice = (inherited + WORKER_NICER).min(NICEST);
    Ok(rustix::process::setpriority_process(thread, nice)?)
}

/// Whether a thread of this process with that number exists.
pub fn exists(id: i32) -> bool {
    fs::metadata(format!("/proc/self/task/{id}")).is_ok()
}

/// Work on files: where a hung disk holds a thread.
const FILE_CALLS: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_getdents64,
    libc::SYS_close,
];

/// A look at one thread of this process, as often as one likes: its descriptors are opened once,
/// so that a look costs two reads and no memory.
#[derive(Debug)]
pub struct Watch {
    stat: File,
    /// None where this kernel does not tell.
    syscall: Option<File>,
    ticks_per_second: u64,
}

impl Watch {
    /// Of the calling thread.
    pub fn of_this_thread() -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/self/task/{}/{name}", id()));
        Ok(Self {
            stat: open("stat")?,
            syscall: open("syscall").ok(),
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
        })
    }

    /// What the thread is doing, read without its help; in which call only if it is `silent`.
    /// None if it is gone.
    pub fn look(&self, silent: bool) -> Option<Thread> {
        let mut buffer = [0; 512];
        let (state, ticks) = state_and_ticks(read(&self.stat, &mut buffer)?)?;
        let call = if silent { self.call() } else { Call::None };
        Some(Thread {
            state,
            call,
            cpu_ms: ticks * 1000 / self.ticks_per_second,
        })
    }

    fn call(&self) -> Call {
        let mut buffer = [0; 256];
        let line = self.syscall.as_ref().and_then(|f| read(f, &mut buffer));
        match line.and_then(call_number) {
            None => Call::None,
            Some(number) if number == libc::SYS_futex => Call::Lock,
            Some(number) if FILE_CALLS.contains(&number) => Call::File,
            Some(_) => Call::Other,
        }
    }
}

fn read<'b>(file: &File, buffer: &'b mut [u8]) -> Option<&'b str> {
    let length = rustix::io::pread(file, &mut *buffer, 0).ok()?;
    // The thread's name may be cut within a character; what is read stands behind it.
    let text = buffer.get(..length)?;
    let begin = text.iter().rposition(|b| *b == b')').map_or(0, |at| at + 1);
    std::str::from_utf8(text.get(begin..)?).ok()
}

/// State letter and CPU time in clock ticks, from what stands behind the name in `stat`.
fn state_and_ticks(behind_name: &str) -> Option<(char, u64)> {
    let mut fields = behind_name.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((state, user + system))
}

/// The number of the call in a line of `syscall`; none for `running` and for -1.
fn call_number(line: &str) -> Option<libc::c_long> {
    let number = line.split_ascii_whitespace().next()?.parse().ok()?;
    (number >= 0).then_some(number)
}

/// What a thread of this process is doing, in full, for the record. None if it is gone.
pub fn story(id: i32) -> Option<ThreadReport> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{id}/{name}")).ok();
    let stat = read("stat")?;
    let (state, ticks) = state_and_ticks(stat.rsplit(')').next()?)?;
    Some(ThreadReport {
        state: state.to_string(),
        syscall: read("syscall").as_deref().and_then(call_number),
        wait_channel: read("wchan").unwrap_or_default().trim().to_owned(),
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", id())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(16).map(|f| f.parse().unwrap()).next().unwrap()
    }

    #[test]
    fn a_priority_is_lowered_from_whatever_it_was_and_shows_in_proc() {
        std::thread::spawn(|| {
            for _ in 0..6 {
                let before = nice();
                lower_priority().unwrap();
                assert_eq!(nice(), (before + WORKER_NICER).min(NICEST));
            }
        })
        .join()
        .unwrap();
    }

    /// A watched thread that does this; ended by the returned sender.
    fn watched(
        deed: impl FnOnce(std::sync::mpsc::Receiver<()>) + Send + 'static,
    ) -> (
        i32,
        Watch,
        std::thread::JoinHandle<()>,
        std::sync::mpsc::Sender<()>,
    ) {
        let (end, ended) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send((id(), Watch::of_this_thread().unwrap())).unwrap();
            deed(ended);
        });
        let (id, watch) = told.recv().unwrap();
        (id, watch, thread, end)
    }

    fn until(mut holds: impl FnMut() -> bool) {
        let end = crate::clock::mono() + std::time::Duration::from_secs(60);
        while !holds() {
            assert!(crate::clock::mono() < end, "in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_look_tells_a_waiting_thread_from_a_gone_one() {
        let (id, watch, thread, end) = watched(|ended| {
            let _ = ended.recv();
        });
        until(|| watch.look(true).is_some_and(|t| t.call == Call::Lock));
        let story = story(id).unwrap();
        assert_eq!(
            (story.state.as_str(), story.syscall),
            ("S", Some(libc::SYS_futex))
        );
        drop(end);
        thread.join().unwrap();
        until(|| !exists(id));
        assert_eq!(watch.look(true), None);
        assert_eq!(super::story(id), None);
    }

    #[test]
    fn a_look_tells_one_that_computes_and_one_that_reads() {
        let (_, spins, spinning, end) =
            watched(
                |ended| {
                    while ended.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {}
                },
            );
        let first = spins.look(true).unwrap();
        until(|| {
            spins
                .look(true)
                .is_some_and(|t| t.state == 'R' && t.cpu_ms >= first.cpu_ms + 50)
        });
        drop(end);
        spinning.join().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (_, reads, reading, _end) = watched(move |_| {
            let _ = std::io::Read::read(&mut reader, &mut [0]);
        });
        until(|| reads.look(true).is_some_and(|t| t.call == Call::File));
        assert_eq!(reads.look(false).unwrap().call, Call::None, "not asked");
        drop(writer);
        reading.join().unwrap();
    }
}
