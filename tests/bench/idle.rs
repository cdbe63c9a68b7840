//! What an idle service costs: two routes, 10,000 files already sent (deleted after it, and kept
//! in another run), then resident memory, CPU time and context switches over a minute, in total
//! and per thread. `cargo bench --bench idle`; FTPULSE_BENCH_SECONDS and FTPULSE_BENCH_FILES
//! change the window and the number of files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{LabServer, Script};
use support::service::Settings;
use support::{PATIENCE, temp_dir, wait_until};

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

fn let_pass(time: Duration) {
    let end = clock::mono() + time;
    wait_until("the time is over", time + PATIENCE, || {
        std::thread::park_timeout(end.saturating_sub(clock::mono()));
        clock::mono() >= end
    });
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

fn measure(after: &str) {
    let (files, seconds) = (
        setting("FTPULSE_BENCH_FILES", 10_000),
        setting("FTPULSE_BENCH_SECONDS", 60),
    );
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut settings = Settings::new().key("log.level", "info");
    for route in ["one", "two"] {
        settings = settings
            .route_to(route, &lab.url(route), lab.password())
            .key(&format!("routes.{route}.after"), after);
    }
    let service = settings.start();
    let began = clock::mono();
    for n in 0..files {
        service.put(
            if n % 2 == 0 { "one" } else { "two" },
            &format!("file-{n:06}.dat"),
            b"0123456789",
        );
    }
    let wanted = files as f64;
    wait_until("all files are delivered", PATIENCE * 10, || {
        service
            .metrics()
            .sum("ftpulse_files_total", &[("outcome", "delivered")])
            >= wanted
    });
    println!(
        "after={after}: {files} files in {:.1} s",
        (clock::mono() - began).as_secs_f64()
    );
    // Sessions are kept for half a minute; then the service is idle.
    let_pass(Duration::from_secs(setting("FTPULSE_BENCH_REST", 35)));
    let pid = service.pid();
    let (before, ticks_before) = (threads(pid), ticks(pid));
    let_pass(Duration::from_secs(seconds));
    let (now, ticks_now) = (threads(pid), ticks(pid));
    let mut per_name: BTreeMap<String, (usize, u64, u64)> = BTreeMap::new();
    for (id, used) in &now {
        let old = before.get(id).cloned().unwrap_or_default();
        let sum = per_name.entry(used.name.clone()).or_default();
        sum.0 += 1;
        sum.1 += used.cpu_ns - old.cpu_ns;
        sum.2 += used.switches - old.switches;
    }
    let (cpu, switches) = per_name
        .values()
        .fold((0, 0), |all, one| (all.0 + one.1, all.1 + one.2));
    let (rss, anon, peak) = memory(pid);
    println!(
        "  rss {:.1} MiB (anonymous {:.1}, peak {:.1})",
        rss as f64 / 1024.0,
        anon as f64 / 1024.0,
        peak as f64 / 1024.0
    );
    println!(
        "  cpu {:.4} s in {seconds} s ({} ticks), context switches {switches}, threads {}",
        cpu as f64 / 1e9,
        ticks_now - ticks_before,
        now.len()
    );
    for (name, (count, cpu, switches)) in per_name {
        println!(
            "    {name:18} x{count}  cpu {:8.2} ms  switches {switches}",
            cpu as f64 / 1e6
        );
    }
}

fn main() {
    // What cargo hands over (`--bench`) is of no use here.
    for after in ["delete", "keep"] {
        measure(after);
    }
}
