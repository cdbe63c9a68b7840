//! Threads as the system sees them: their number, their nice value, and what they are doing.

use std::fs;
use std::io;

use crate::core::vouch::Thread;

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

/// What a thread of this process is doing, read without its help. None if it is gone.
pub fn facts(id: i32) -> Option<Thread> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{id}/{name}")).ok();
    let stat = read("stat")?;
    // The name in parentheses may contain anything; the fields begin behind the last one.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    let ticks: u64 = [11, 12]
        .iter()
        .filter_map(|i| fields.get(*i)?.parse::<u64>().ok())
        .sum();
    let call = read("syscall").unwrap_or_default();
    let mut words = call.split_whitespace();
    let syscall = words.next().and_then(|w| w.parse::<i64>().ok());
    let argument = words
        .next()
        .and_then(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0);
    Some(Thread {
        state,
        syscall,
        argument,
        wait_channel: read("wchan").unwrap_or_default().trim().to_owned(),
        waits_for_lock: syscall == Some(libc::SYS_futex),
        cpu_ms: ticks * 1000 / rustix::param::clock_ticks_per_second().max(1),
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

    #[test]
    fn facts_tell_a_waiting_thread_from_a_gone_one() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (number, numbers) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            number.send(id()).unwrap();
            let _ = receiver.recv();
        });
        let id = numbers.recv().unwrap();
        assert!(facts(id).is_some());
        drop(sender);
        thread.join().unwrap();
        while exists(id) {
            std::thread::yield_now();
        }
        assert_eq!(facts(id), None);
    }
}
