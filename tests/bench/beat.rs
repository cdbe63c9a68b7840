//! What a beat costs: microseconds and allocations for one slot, by the parts of a beat that run
//! in the service; then the CPU time of a service with 64 idle and with 64 busy slots over a
//! minute. `cargo bench --bench beat`; FTPULSE_BENCH_SECONDS changes the window,
//! FTPULSE_BENCH_SLOTS the number of slots.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a benchmark says no

#[path = "../support/mod.rs"]
mod support;
mod usage;

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use ftpulse::clock;
use ftpulse::core::heartbeat::{Action, Heartbeat, Policy};
use ftpulse::core::names::{Beat, Phase};
use ftpulse::core::vouch::{Limits, Vouchers, Witness};
use ftpulse::lab::{Fault, Kind, LabServer, Script};
use ftpulse::pulse::WorkerHandle;
use ftpulse::sys::fence::Which;
use support::service::Settings;
use support::{PATIENCE, content, temp_dir, wait_until};
use usage::{Window, let_pass, setting};

const ROUNDS: u32 = 20_000;
const RUNS: usize = 7;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A connection, both ends.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A worker with two connections: one that answers every Ping, or one that is silent in a
/// transfer. Measures what the service does for one beat of it, without the message between the
/// actors.
fn one_beat(silent: bool) {
    let handle = Arc::new(WorkerHandle::new(1).unwrap());
    let (control, data) = (connection(), connection());
    let over = Arc::new(AtomicBool::new(false));
    let worker = {
        let (handle, over) = (Arc::clone(&handle), Arc::clone(&over));
        let (control, data) = (control.0.try_clone().unwrap(), data.0.try_clone().unwrap());
        std::thread::spawn(move || {
            let _attached = handle.fence.attach();
            for (which, socket) in [(Which::Control, &control), (Which::Data, &data)] {
                handle.fence.keep(which, socket.as_fd()).unwrap().unwrap();
            }
            handle.born().unwrap();
            handle.begin(Phase::Transfer, None);
            while !over.load(SeqCst) {
                if silent {
                    std::thread::park_timeout(Duration::from_secs(1));
                } else {
                    handle.fence.wait(None, None).unwrap();
                    handle.ack();
                }
            }
        })
    };
    wait_until("the worker stands", PATIENCE, || {
        handle.phase() == Phase::Transfer
    });
    let policy = Policy {
        interval: Duration::from_secs(2),
        misses: 3,
        lease: None,
    };
    let limits = Limits {
        stall: Duration::from_secs(3600),
        disk: Duration::from_secs(30),
        compute: Duration::from_secs(600),
        beat: policy.interval,
    };
    let (vouchers, mut witness) = (Vouchers::all(), Witness::default());
    let mut beat = Heartbeat::new(policy, 1, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut beat_once = || {
        let Action::Ping { seq } = beat.tick(now, now) else {
            panic!("a Ping is due")
        };
        let sample = handle.sample(seq);
        witness.observe(&sample);
        let worth = if sample.acked + 1 >= seq {
            Beat::Acked
        } else if witness.vouched(&vouchers, &sample, limits).is_some() {
            Beat::Vouched
        } else {
            Beat::Missed
        };
        beat.pong(1, seq, worth);
        assert!(!beat.deadlocked());
        now += policy.interval;
    };
    let times = (0..RUNS).map(|_| {
        let began = clock::mono();
        for _ in 0..ROUNDS {
            beat_once();
        }
        (clock::mono() - began).as_secs_f64() * 1e6 / f64::from(ROUNDS)
    });
    let times: Vec<f64> = times.collect();
    let allocations = allocation_counter::measure(|| {
        for _ in 0..1000 {
            beat_once();
        }
    });
    println!(
        "  {:10} {:.2} us a beat (median of {RUNS} runs of {ROUNDS}), {} allocations in 1000 beats",
        if silent { "silent" } else { "answering" },
        median(times),
        allocations.count_total
    );
    over.store(true, SeqCst);
    handle.fence.wake();
    worker.thread().unpark();
    worker.join().unwrap();
}

/// A service with so many slots over eight routes; `busy`: each has a file whose peer reads it
/// slowly.
fn slots(busy: bool) {
    let (slots, seconds) = (
        setting("FTPULSE_BENCH_SLOTS", 64),
        setting("FTPULSE_BENCH_SECONDS", 60),
    );
    let routes = 8.min(slots);
    let per_route = slots / routes;
    let root = temp_dir();
    const RATE: u64 = 64 * 1024;
    let script = if busy {
        let kind = Kind::Trickle {
            after: 0,
            bytes_per_second: RATE as u32,
        };
        Script::of([Fault::new(kind).always()])
    } else {
        Script::healthy()
    };
    let lab = LabServer::start(root.path(), script).unwrap();
    let mut settings = Settings::new()
        .key("log.level", "info")
        .key("quarantine.capacity", slots);
    for route in 0..routes {
        settings = settings
            .route_to(
                &format!("r{route}"),
                &lab.url(&format!("r{route}")),
                lab.password(),
            )
            .key(&format!("routes.r{route}.uploaders"), per_route);
    }
    let service = settings.start();
    if busy {
        // Half as much again as the window takes, beside what the sockets hold.
        let bytes = content(1, (RATE * seconds * 3 / 2 + (4 << 20)) as usize);
        for slot in 0..slots {
            service.put(
                &format!("r{}", slot % routes),
                &format!("{slot}.bin"),
                &bytes,
            );
        }
        let all = |c: &ftpulse::lab::Counters| c.data_open as u64 == slots;
        lab.wait_counters(all, PATIENCE).unwrap();
    }
    let_pass(Duration::from_secs(setting("FTPULSE_BENCH_REST", 5)));
    println!("{slots} {} slots", if busy { "busy" } else { "idle" });
    let before = service.metrics().sum("ftpulse_beats_total", &[]);
    let window = Window::open(service.pid());
    let_pass(Duration::from_secs(seconds));
    window.close();
    let metrics = service.metrics();
    println!(
        "  beats {}, resets {}",
        metrics.sum("ftpulse_beats_total", &[]) - before,
        metrics.sum("ftpulse_uploader_resets_total", &[])
    );
}

fn main() {
    println!("one beat of one slot");
    one_beat(false);
    one_beat(true);
    slots(false);
    slots(true);
}
