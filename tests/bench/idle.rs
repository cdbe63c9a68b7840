//! What an idle service costs: two routes, 10,000 files already sent (deleted after it, and kept
//! in another run, and once more under its own watchdog, which is measured as well), then resident
//! memory, CPU time and context switches over a minute, in total and per thread.
//! `cargo bench --bench idle`; FTPULSE_BENCH_SECONDS and FTPULSE_BENCH_FILES change the window and
//! the number of files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

#[path = "../support/mod.rs"]
mod support;
mod usage;

use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{LabServer, Script};
use support::process::descendants;
use support::service::Settings;
use support::{PATIENCE, temp_dir, wait_until};
use usage::{Window, let_pass, setting};

fn measure(after: &str, watched: bool) {
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
    if watched {
        settings = settings.arg("--watchdog");
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
        "after={after}, watchdog={watched}: {files} files in {:.1} s",
        (clock::mono() - began).as_secs_f64()
    );
    // Sessions are kept for half a minute; then the service is idle.
    let_pass(Duration::from_secs(setting("FTPULSE_BENCH_REST", 35)));
    let mut pids = vec![service.pid()];
    pids.extend(descendants(service.pid()));
    let windows: Vec<Window> = pids.into_iter().map(Window::open).collect();
    let_pass(Duration::from_secs(seconds));
    windows.into_iter().for_each(Window::close);
}

fn main() {
    // What cargo hands over (`--bench`) is of no use here.
    for (after, watched) in [("delete", false), ("keep", false), ("delete", true)] {
        measure(after, watched);
    }
}
