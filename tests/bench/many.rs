//! A spool of 1,000,000 files, half of them empty and half of 1 KiB, in one folder and in a
//! thousand: when the first is delivered, then files/s and resident memory over each tenth of the
//! way. `cargo bench --bench many`; FTPULSE_BENCH_FILES changes the number, FTPULSE_BENCH_UPLOADERS
//! the uploaders, FTPULSE_BENCH_SECONDS ends each run early, FTPULSE_BENCH_PROGRAM measures
//! another program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a benchmark says no

#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code)] // the windows are for other benchmarks
mod usage;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{LabServer, Script};
use support::process::tied;
use support::service::{Ftpulse, Settings};
use support::{rss_of, temp_dir, wait_for};
use usage::{let_pass, setting};

const KIB: usize = 1024;

fn fill(spool: &Path, files: u64, folders: u64) {
    let content = [b'x'; KIB];
    let per_folder = files.div_ceil(folders);
    for n in 0..files {
        let folder = if folders == 1 {
            spool.to_owned()
        } else {
            spool.join(format!("{:04}", n / per_folder))
        };
        if n % per_folder == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        let size = if n % 2 == 0 { 0 } else { KIB };
        let mut file = fs::File::create(folder.join(format!("file-{n:07}.dat"))).unwrap();
        file.write_all(&content[..size]).unwrap();
    }
}

fn delivered(service: &Ftpulse) -> f64 {
    service
        .metrics()
        .sum("ftpulse_files_total", &[("outcome", "delivered")])
}

fn measure(files: u64, folders: u64, after: &str) {
    println!("{files} files in {folders} folders, after = {after}");
    let there = temp_dir();
    let lab = LabServer::start(there.path(), Script::healthy()).unwrap();
    let settings = Settings::new()
        .key("log.level", "warning")
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.settle", "0s")
        .key("routes.main.after", after)
        .key(
            "routes.main.uploaders",
            setting("FTPULSE_BENCH_UPLOADERS", 4),
        );
    fill(&settings.spool("main"), files, folders);
    let program = std::env::var("FTPULSE_BENCH_PROGRAM");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_ftpulse").into());
    let began = clock::mono();
    let mut service = settings.key("log.level", "info").launch_as(tied(&program));
    service.wait_listening();
    let first = service.wait_log_within(Duration::from_secs(600), "file delivered", |_| true);
    let first_after = (clock::mono() - began).as_secs_f64();
    println!(
        "  first delivered {first_after:.2} s after the start ({})",
        first["file"]
    );
    let pid = service.pid();
    let bound = Duration::from_secs(setting("FTPULSE_BENCH_SECONDS", 24 * 3600));
    let step = (files / 10).max(1) as f64;
    let (mut at, mut since) = (0.0, clock::mono());
    println!(
        "  {:>9} {:>9} {:>9} {:>9} {:>9}",
        "delivered", "seconds", "files/s", "rss MiB", "waiting"
    );
    while at < files as f64 {
        let goal = (at + step).min(files as f64);
        let now = wait_for(
            "a tenth is delivered",
            Duration::from_secs(24 * 3600),
            || {
                let_pass(Duration::from_millis(500));
                let over = clock::mono() > began + bound;
                Some(delivered(&service)).filter(|n| *n >= goal || over)
            },
        );
        let time = clock::mono();
        let waiting = service.metrics().sum("ftpulse_spool_files", &[]);
        println!(
            "  {now:>9} {:>9.1} {:>9.0} {:>9.1} {waiting:>9}",
            (time - began).as_secs_f64(),
            (now - at) / (time - since).as_secs_f64(),
            rss_of(pid).now as f64 / 1024.0,
        );
        (at, since) = (now, time);
        if time > began + bound {
            break;
        }
    }
    service.process.kill();
}

fn main() {
    let files = setting("FTPULSE_BENCH_FILES", 1_000_000);
    for (folders, after) in [(1, "delete"), (1000, "delete"), (1, "keep")] {
        measure(files, folders.min(files), after);
    }
}
