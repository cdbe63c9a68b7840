//! What the journal costs: deliveries a second of small files to a real server on loopback, with the
//! journal on the disk, with the journal in memory (what is left is the cost of writing without
//! that of syncing), and without one. By turns, medians of several runs.
//! `cargo bench --bench journal`; FTPULSE_BENCH_FILES and FTPULSE_BENCH_RUNS change the numbers,
//! FTPULSE_BENCH_BYTES the size of a file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a benchmark says no

#[path = "../support/inside.rs"]
mod inside;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code)] // the windows are for other benchmarks
mod usage;

use std::path::Path;

use ftpulse::clock;
use ftpulse::pulse::Sabotage;
use inside::Inside;
use support::servers::{Opts, Server};
use support::service::Settings;
use support::{PATIENCE, wait_until};
use usage::setting;

const KINDS: [&str; 3] = ["on the disk", "in memory", "none"];

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Deliveries a second of one run.
fn run(kind: &str, uploaders: u64, files: u64, bytes: usize) -> f64 {
    let server = Server::vsftpd(Opts::default());
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut settings = Settings::new()
        .route("main", &server, "in")
        .key("routes.main.settle", "0s")
        .key("routes.main.uploaders", uploaders);
    if kind == "in memory" {
        settings = settings.key("state.dir", memory.path().display());
    }
    let spool = settings.spool("main");
    fill(&spool, files, bytes);
    let sabotage = match kind {
        "none" => Sabotage::without_journal(),
        _ => Sabotage::default(),
    };
    let service = Inside::start(settings, &sabotage);
    // The first ones pay for the start and the logins.
    let warm = files / 10;
    wait_until("it runs", PATIENCE, || service.delivered("main") >= warm);
    let (began, from) = (clock::mono(), service.delivered("main"));
    wait_until("all are delivered", PATIENCE * 10, || {
        service.delivered("main") >= files
    });
    (files - from) as f64 / (clock::mono() - began).as_secs_f64()
}

fn fill(spool: &Path, files: u64, bytes: usize) {
    std::fs::create_dir_all(spool).unwrap();
    for n in 0..files {
        std::fs::write(spool.join(format!("file-{n:06}.dat")), vec![b'x'; bytes]).unwrap();
    }
}

fn main() {
    let (files, runs): (u64, u64) = (
        setting("FTPULSE_BENCH_FILES", 1000),
        setting("FTPULSE_BENCH_RUNS", 5),
    );
    let bytes = setting("FTPULSE_BENCH_BYTES", 1024) as usize;
    println!("{files} files of {bytes} B to vsftpd on loopback, median of {runs} runs by turns");
    for uploaders in [1, 2, 8] {
        let mut rates = [(); 3].map(|()| Vec::new());
        for _ in 0..runs {
            for (kind, rates) in KINDS.iter().zip(&mut rates) {
                rates.push(run(kind, uploaders, files, bytes));
            }
        }
        let medians = rates.map(|mut rates| median(&mut rates));
        for (kind, rate) in KINDS.iter().zip(medians) {
            let lost = 100.0 * (1.0 - rate / medians[2]);
            println!(
                "  {uploaders} uploaders, journal {kind:<11} {rate:>7.0} files/s, {lost:>5.1} % lost"
            );
        }
    }
}
