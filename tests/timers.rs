//! Every wait has its own bound, its own phase in log and metrics, and leaves the local and the
//! remote file in a defined state (S2). Each row lets one wait never end and prints the bound, the
//! measured end, the retries that were logged and what stood where then; the file is delivered
//! afterwards. Also: replies that come one byte a second are bounded just the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::time::Duration;

use ftpulse::clock;
use ftpulse::lab::{Event, Fault, Kind, LabServer, Script, Step, Tls};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};

/// More than the sockets on the way hold.
const SIZE: usize = 8 << 20;
/// Beats missed before a verdict, and the time between two: a timer may be late by so much.
const MISSES: u32 = 9;
const INTERVAL: Duration = Duration::from_millis(100);
/// What a busy machine may add: this is no test of speed.
const SLACK: Duration = Duration::from_secs(5);

/// How the service speaks with the server.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Tls,
    Active,
}
use Way::{Active, Plain};

struct Row {
    /// The timer, and its value, milliseconds; attempts and the pause between two, where it has
    /// some.
    timer: &'static str,
    bound: u64,
    attempts: (u64, u64),
    kind: Kind,
    way: Way,
    phase: &'static str,
}

/// One that is tried once.
const fn once(timer: &'static str, bound: u64, kind: Kind, way: Way, phase: &'static str) -> Row {
    Row {
        timer,
        bound,
        attempts: (1, 0),
        kind,
        way,
        phase,
    }
}

const ROWS: &[Row] = &[
    once(
        "reply",
        1000,
        Kind::NoReply(Step::Greeting),
        Plain,
        "greeting",
    ),
    once("reply", 1000, Kind::NoReply(Step::Pass), Plain, "reply"),
    once("reply", 1000, Kind::NoReply(Step::Stor), Plain, "reply"),
    once(
        "reply",
        1000,
        Kind::NoReply(Step::Final),
        Plain,
        "final_reply",
    ),
    once("reply", 1000, Kind::NoReply(Step::Size), Plain, "reply"),
    once("reply", 1000, Kind::NoReply(Step::Rnfr), Plain, "reply"),
    Row {
        timer: "data_connect",
        bound: 500,
        attempts: (3, 200),
        kind: Kind::DataNotAccepted,
        way: Plain,
        phase: "data_connect",
    },
    once(
        "transfer_put",
        1000,
        Kind::StopReading { after: 1 << 20 },
        Plain,
        "transfer",
    ),
    once("listen", 1000, Kind::NoConnect, Active, "listen"),
    once("tls", 1000, Kind::NoReply(Step::Tls), Way::Tls, "tls"),
    once("tls", 1000, Kind::NoReply(Step::DataTls), Way::Tls, "tls"),
    once("reply", 1000, Kind::NoTlsClose, Way::Tls, "tls_close"),
];

const SECOND: Duration = Duration::from_secs(1);

/// Replies, and what else comes from a server, one byte a second.
const DRIPS: &[(Step, Way, &str, &str)] = &[
    (Step::Greeting, Plain, "reply", "greeting"),
    (Step::User, Plain, "reply", "reply"),
    (Step::Pass, Plain, "reply", "reply"),
    (Step::Type, Plain, "reply", "reply"),
    (Step::Cwd, Plain, "reply", "reply"),
    (Step::Mkd, Plain, "reply", "reply"),
    (Step::Feat, Plain, "reply", "reply"),
    (Step::Mfmt, Plain, "reply", "reply"),
    (Step::Epsv, Plain, "reply", "reply"),
    (Step::Stor, Plain, "reply", "reply"),
    (Step::Final, Plain, "reply", "final_reply"),
    (Step::Size, Plain, "reply", "reply"),
    (Step::Rnfr, Plain, "reply", "reply"),
    (Step::Rnto, Plain, "reply", "reply"),
    (Step::Eprt, Active, "reply", "reply"),
    (Step::Auth, Way::Tls, "reply", "reply"),
    (Step::Tls, Way::Tls, "tls", "tls"),
    (Step::Pbsz, Way::Tls, "reply", "reply"),
    (Step::Prot, Way::Tls, "reply", "reply"),
    (Step::DataTls, Way::Tls, "tls", "tls"),
];

fn server(root: &std::path::Path, way: Way, kind: Kind) -> LabServer {
    let script = Script::of([Fault::new(kind).first(1)]);
    let script = match way {
        Way::Tls => script.over(Tls::explicit()),
        Plain | Active => script,
    };
    LabServer::start(root, script).unwrap()
}

/// A service with long timers, but for those that a row sets.
fn settings(lab: &LabServer, way: Way) -> Settings {
    let settings = Settings::new()
        .key("heartbeat.interval", "100ms")
        .key("heartbeat.misses", MISSES)
        .key("retry.first", "100ms")
        .key("routes.main.uploaders", 1)
        .route_to("main", &lab.url("in"), lab.password());
    match (way, lab.ca()) {
        (Way::Tls, Some(ca)) => {
            let file = settings.spool("main").with_file_name("ca.pem");
            fs::write(&file, ca).unwrap();
            settings.key("routes.main.ca_file", file.display())
        }
        (Active, _) => settings.key("routes.main.mode", "active"),
        _ => settings,
    }
}

/// Waits for the end of the wait that never ends, and looks at what stands where.
fn end_of(service: &Ftpulse) -> serde_json::Value {
    service.wait_any(&["upload failed", "the destination gives no session"])
}

fn one(row: &Row) -> String {
    let root = temp_dir();
    let lab = server(root.path(), row.way, row.kind);
    let mut events = lab.events();
    let timer = |key: &str| format!("timers.{}{key}", row.timer);
    let (attempts, pause) = row.attempts;
    let mut settings = settings(&lab, row.way).key(&timer(""), format!("{}ms", row.bound));
    if attempts > 1 {
        settings = settings
            .key(&timer("_attempts"), attempts)
            .key(&timer("_interval"), format!("{pause}ms"));
    }
    let service = settings.start();
    let bytes = content(7, SIZE);
    let source = service.put("main", "file.bin", &bytes);
    events
        .wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE)
        .expect("it strikes");
    let began = clock::mono();
    let told = end_of(&service);
    let took = clock::mono() - began;
    let total = Duration::from_millis((row.bound + pause) * attempts);
    assert_eq!(told["phase"], row.phase, "{told}");
    assert!(told["next"].is_string(), "{told}");
    assert!(
        took <= total + INTERVAL * (MISSES + 2) + SLACK,
        "{took:?}, {told}"
    );
    let retries = service.logged("connecting failed").len() as u64;
    assert_eq!(retries, attempts - 1, "each retry is logged");
    assert_eq!(fs::read(&source).unwrap(), bytes, "the source is as it was");
    let published = root.path().join("in/file.bin");
    assert!(!published.exists(), "nothing stands under the final name");
    let parts = |at: &str| {
        let folder = fs::read_dir(root.path().join(at)).into_iter().flatten();
        folder.count()
    };
    let remote = match parts("in") {
        0 => "nothing",
        _ => "a temp file",
    };
    let metrics = service.metrics();
    let label = [("route", "main"), ("phase", row.phase)];
    assert_eq!(metrics.get("ftpulse_timeouts_total", &label), Some(1.0));
    assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &[]), 0.0);
    lab.thaw();
    service.wait_delivered("file.bin");
    assert_eq!(fs::read(&published).unwrap(), bytes);
    wait_until("the temp is taken away", PATIENCE, || parts("in") == 1);
    format!(
        "{:14} {:10} {attempts} x {:>4} ms {:8.2} s {retries:7} {:12} untouched  {remote}",
        row.timer,
        format!("{:?}", row.kind)
            .split(['{', ' '])
            .next()
            .unwrap_or_default(),
        row.bound,
        took.as_secs_f64(),
        row.phase,
    )
}

/// Runs some at a time: many services on two cores would starve each other.
fn table<T: Sync>(rows: &[T], one: impl Fn(&T) -> String + Sync) {
    for some in rows.chunks(4) {
        let lines: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|row| scope.spawn(|| one(row))).collect();
            running.into_iter().map(|thread| thread.join()).collect()
        });
        for line in lines {
            println!("{}", line.expect("a row is as it should be"));
        }
    }
}

#[test]
fn each_wait_ends_at_its_own_bound_and_leaves_both_files_in_a_defined_state() {
    println!(
        "timer          fault      attempts      ended  retries phase        source     remote"
    );
    table(ROWS, one);
}

#[test]
fn what_comes_one_byte_a_second_is_bounded_by_the_same_timers() {
    println!("timer  step              bound    ended phase");
    table(DRIPS, |&(step, way, timer, phase)| {
        let root = temp_dir();
        let lab = server(
            root.path(),
            way,
            Kind::Drip {
                step,
                every: SECOND,
            },
        );
        let mut events = lab.events();
        let service = settings(&lab, way)
            .key(&format!("timers.{timer}"), "2s")
            .key("routes.main.keep_time", true)
            .start();
        service.put("main", "file.bin", &content(8, 4000));
        events
            .wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE)
            .expect("it strikes");
        let began = clock::mono();
        let told = end_of(&service);
        let took = clock::mono() - began;
        assert_eq!(told["phase"], phase, "{step:?}: {told}");
        let bound = SECOND * 2;
        assert!(
            took <= bound + INTERVAL * (MISSES + 2) + SLACK,
            "{step:?}: {took:?}"
        );
        service.wait_delivered("file.bin");
        format!(
            "{timer:6} {:16} {:6.2} s {:6.2} s {phase}",
            format!("{step:?}"),
            2.0,
            took.as_secs_f64()
        )
    });
}

/// A server may be at work on the file before it ends the data connection's TLS: that is a wait for
/// its reply, not for TLS.
#[test]
fn a_server_that_ends_tls_late_is_no_fault() {
    let root = temp_dir();
    let late = Fault::new(Kind::NoTlsClose).first(1).ends_after(SECOND * 3);
    let script = Script::of([late]).over(Tls::explicit());
    let lab = LabServer::start(root.path(), script).unwrap();
    let service = settings(&lab, Way::Tls).key("timers.tls", "1s").start();
    service.put("main", "file.bin", &content(7, SIZE));
    let told = service.wait_delivered("file.bin");
    assert!(told["seconds"].as_f64().unwrap() > 2.9, "{told}");
    let metrics = service.metrics();
    assert_eq!(metrics.sum("ftpulse_timeouts_total", &[]), 0.0);
    assert_eq!(metrics.sum("ftpulse_uploader_resets_total", &[]), 0.0);
}

/// A QUIT that is not answered is no file's failure; it is bounded and counted all the same.
#[test]
fn a_quit_without_an_answer_is_bounded_and_counted() {
    for kind in [
        Kind::NoReply(Step::Quit),
        Kind::Drip {
            step: Step::Quit,
            every: SECOND,
        },
    ] {
        let root = temp_dir();
        let lab = server(root.path(), Plain, kind);
        let mut events = lab.events();
        let service = settings(&lab, Plain)
            .key("timers.reply", "1s")
            .key("timers.idle_session", "100ms")
            .start();
        service.put("main", "file.bin", b"small");
        service.wait_delivered("file.bin");
        events
            .wait_for(|e| matches!(e, Event::Struck { .. }), PATIENCE)
            .expect("it strikes");
        let began = clock::mono();
        service.wait_metrics("the QUIT is given up", |m| {
            m.get(
                "ftpulse_timeouts_total",
                &[("route", "main"), ("phase", "quit")],
            ) == Some(1.0)
        });
        let took = clock::mono() - began;
        println!("reply (quit), 1 s: {:.2} s, {kind:?}", took.as_secs_f64());
        assert!(took <= SECOND + INTERVAL * (MISSES + 2) + SLACK, "{took:?}");
        // The slot goes on.
        service.put("main", "next.bin", b"small");
        service.wait_delivered("next.bin");
    }
}

/// A server whose queue of connections is full answers no SYN: each attempt has its bound, there is
/// a pause between two, and each one is logged.
#[test]
fn a_control_connection_that_is_not_answered_ends_after_its_attempts() {
    let busy = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    busy.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    busy.listen(0).unwrap();
    let address = busy.local_addr().unwrap().as_socket().unwrap();
    // The queue takes one more than it was told; what comes then is dropped.
    let _first = std::net::TcpStream::connect(address).unwrap();
    let service = Settings::new()
        .key("heartbeat.interval", "100ms")
        .key("heartbeat.misses", MISSES)
        .key("retry.first", "60s")
        .key("timers.control_connect", "500ms")
        .key("timers.control_connect_attempts", 3)
        .key("timers.control_connect_interval", "200ms")
        .key("routes.main.uploaders", 1)
        .route_to("main", &format!("ftp://u@{address}/in"), "p")
        .start();
    let began = clock::mono();
    let source = service.put("main", "file.bin", b"waits");
    let told = service.wait_log("the destination gives no session", |_| true);
    let took = clock::mono() - began;
    assert_eq!(told["phase"], "control_connect", "{told}");
    let logged = service.logged("connecting failed");
    let numbers: Vec<_> = logged
        .iter()
        .map(|line| line["attempt"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2], "{logged:?}");
    assert!(
        logged.iter().all(|line| line["next"] == "again in 200ms"),
        "{logged:?}"
    );
    let label = [("route", "main"), ("phase", "control_connect")];
    assert_eq!(
        service.metrics().get("ftpulse_timeouts_total", &label),
        Some(1.0)
    );
    assert_eq!(fs::read(source).unwrap(), b"waits");
    let total = Duration::from_millis((500 + 200) * 3);
    println!(
        "control_connect: 3 x (500 + 200) ms: {:.2} s after the file came, settling 0.2 s included",
        took.as_secs_f64()
    );
    assert!(took <= total + INTERVAL * (MISSES + 2) + SLACK, "{took:?}");
}
