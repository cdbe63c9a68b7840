//! What a process uses in a window of time, in total and per thread, as the kernel counts it; and
//! the settings of the benchmarks.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use ftpulse::clock::{self, Mono};

use super::support::{PATIENCE, wait_until};

/// What one thread has used so far.
#[derive(Debug, Clone, Default)]
struct Use {
    name: String,
    cpu_ns: u64,
    switches: u64,
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|w| w.parse().ok()).unwrap_or(0)
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    number(line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()))
}

fn threads(pid: u32) -> BTreeMap<u32, Use> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let used = Use {
            name: read("comm").trim().to_owned(),
            cpu_ns: number(read("schedstat").split_whitespace().next()),
            switches: field(&status, "voluntary_ctxt_switches")
                + field(&status, "nonvoluntary_ctxt_switches"),
        };
        let id = task.file_name().to_string_lossy().parse().unwrap();
        found.insert(id, used);
    }
    found
}

/// Clock ticks of the whole process, threads that have ended included.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    number(fields.get(11).copied()) + number(fields.get(12).copied())
}

fn memory(pid: u32) -> (u64, u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    (
        field(&status, "VmRSS"),
        field(&status, "RssAnon"),
        field(&status, "VmHWM"),
    )
}

/// Lets time go by.
pub fn let_pass(time: Duration) {
    let end = clock::mono() + time;
    wait_until("the time is over", time + PATIENCE, || {
        std::thread::park_timeout(end.saturating_sub(clock::mono()));
        clock::mono() >= end
    });
}

/// A number that a variable of the environment may change.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// A window of time over a process.
pub struct Window {
    pid: u32,
    began: Mono,
    threads: BTreeMap<u32, Use>,
    ticks: u64,
}

impl Window {
    /// It begins now.
    pub fn open(pid: u32) -> Self {
        Self {
            pid,
            began: clock::mono(),
            threads: threads(pid),
            ticks: ticks(pid),
        }
    }

    /// It ends now: prints what was used.
    pub fn close(self) {
        let seconds = (clock::mono() - self.began).as_secs_f64();
        let (now, ticks_now) = (threads(self.pid), ticks(self.pid));
        let mut per_name: BTreeMap<String, (usize, u64, u64)> = BTreeMap::new();
        for (id, used) in &now {
            let old = self.threads.get(id).cloned().unwrap_or_default();
            let sum = per_name.entry(used.group()).or_default();
            sum.0 += 1;
            sum.1 += used.cpu_ns - old.cpu_ns;
            sum.2 += used.switches - old.switches;
        }
        let (cpu, switches) = per_name
            .values()
            .fold((0, 0), |all, one| (all.0 + one.1, all.1 + one.2));
        let (rss, anon, peak) = memory(self.pid);
        println!(
            "  rss {:.1} MiB (anonymous {:.1}, peak {:.1})",
            rss as f64 / 1024.0,
            anon as f64 / 1024.0,
            peak as f64 / 1024.0
        );
        println!(
            "  cpu {:.4} s in {seconds:.1} s ({} ticks), context switches {switches}, threads {}",
            cpu as f64 / 1e9,
            ticks_now - self.ticks,
            now.len()
        );
        for (name, (count, cpu, switches)) in per_name {
            println!(
                "    {name:18} x{count}  cpu {:8.2} ms  switches {switches}",
                cpu as f64 / 1e6
            );
        }
    }
}

impl Use {
    /// All workers are one group.
    fn group(&self) -> String {
        match self.name.strip_prefix("up-") {
            Some(_) => "up-*".to_owned(),
            None => self.name.clone(),
        }
    }
}
