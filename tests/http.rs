//! The HTTP side over real sockets: what answers, to whom, and that no client can hold it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ftpulse::config::{Http, Secret};
use ftpulse::http::{self, Answer, Health, HttpError, Retried, ServerHandle, Source, Unavailable};
use ftpulse::metrics::Metrics;
use ftpulse::report::{
    Incident, QuarantineStatus, Retry, RetryRequest, RouteStatus, SlotStatus, Status,
};
use slog::{Discard, Logger, o};
use support::http as client;

/// Generous: an event that does not come within this time does not come.
const SOON: Duration = Duration::from_secs(60);

fn connect(address: SocketAddr) -> std::net::TcpStream {
    client::connect(address).unwrap()
}

fn get(address: SocketAddr, path: &str) -> client::Answer {
    request(address, "GET", path, &[])
}

fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> client::Answer {
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    client::request(address, method, path, &lines.collect::<String>()).unwrap()
}

fn raw(address: SocketAddr, bytes: &[u8]) -> client::Answer {
    client::raw(address, bytes).unwrap()
}

/// A service in a state of the test's choice.
#[derive(Default)]
struct Service {
    status: Status,
    incidents: BTreeMap<u64, Incident>,
    unavailable: Option<&'static str>,
    silent: AtomicBool,
    panics: AtomicBool,
    stuck: AtomicBool,
    reasons: Mutex<Vec<String>>,
}

impl Service {
    fn answer<T: 'static>(&self, value: T) -> Answer<'_, T> {
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        if self.silent.load(Ordering::SeqCst) {
            return Box::pin(pending());
        }
        Box::pin(ready(match self.unavailable {
            Some(reason) => Err(Unavailable(reason.to_owned())),
            None => Ok(value),
        }))
    }
}

impl Source for Service {
    fn status(&self) -> Answer<'_, Status> {
        self.answer(self.status.clone())
    }
    fn incidents(&self) -> Answer<'_, Vec<Incident>> {
        self.answer(self.incidents.values().cloned().collect())
    }
    fn incident(&self, id: u64) -> Answer<'_, Option<Incident>> {
        self.answer(self.incidents.get(&id).cloned())
    }
    fn retry(&self, request: RetryRequest) -> Answer<'_, Retried> {
        let routes = vec!["main".to_owned()];
        if request.route != "main" {
            return self.answer(Retried::NoRoute { routes });
        }
        self.answer(Retried::Done(Retry {
            route: request.route,
            files: Vec::new(),
            left: request.files.len() as u64,
        }))
    }
    fn healthy(&self) -> Health {
        if self.stuck.load(Ordering::SeqCst) {
            Health::Stuck {
                silent: Duration::from_millis(7500),
            }
        } else {
            Health::Turning
        }
    }
    fn ready(&self) -> Vec<String> {
        self.reasons.lock().unwrap().clone()
    }
}

/// A running server; dropping it stops it and waits for its end.
struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
    metrics: Metrics,
    service: Arc<Service>,
}

impl Running {
    /// Stops gracefully and waits until the server is gone.
    fn stop(&mut self) {
        drop(self.handle.stop(true));
        let thread = self.thread.take().unwrap();
        let (ended_tx, ended) = mpsc::channel();
        std::thread::spawn(move || ended_tx.send(thread.join().is_ok()));
        assert!(ended.recv_timeout(SOON).expect("the server ends"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.stop();
        }
    }
}

fn log() -> Logger {
    Logger::root(Discard, o!())
}

fn serve(listen: &str, token: Option<&str>, service: Service) -> Running {
    let config = Http {
        listen: listen.parse().unwrap(),
        token: token.map(Secret::new),
    };
    let metrics = Metrics::new(&["main"], "1.2.3", "abc");
    let service = Arc::new(service);
    let (started_tx, started) = mpsc::channel();
    let thread = std::thread::spawn({
        let (metrics, service) = (metrics.clone(), service.clone());
        move || {
            actix_rt::System::new().block_on(async {
                let (server, address) = http::bind(&config, metrics, service, log()).unwrap();
                started_tx.send((server.handle(), address)).unwrap();
                server.await.unwrap();
            });
        }
    });
    let (handle, mut address) = started.recv_timeout(SOON).expect("the server starts");
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    Running {
        address,
        handle,
        thread: Some(thread),
        metrics,
        service,
    }
}

fn local(service: Service) -> Running {
    serve("127.0.0.1:0", None, service)
}

fn busy() -> Service {
    let slot = SlotStatus {
        phase: "transfer".into(),
        file: Some("a&b.csv".into()),
        ..SlotStatus::default()
    };
    let route = RouteStatus {
        name: "main".into(),
        destination: "<script>alert(1)</script>@ftp.example.net:21".into(),
        waiting: 17,
        slots: vec![slot],
        ..RouteStatus::default()
    };
    Service {
        status: Status {
            version: "1.2.3".into(),
            routes: vec![route],
            quarantine: QuarantineStatus {
                capacity: 16,
                pairs: Vec::new(),
            },
            ..Status::default()
        },
        incidents: BTreeMap::from([
            (
                1,
                Incident {
                    id: 1,
                    cause: "zero_window".into(),
                    ..Incident::default()
                },
            ),
            (
                2,
                Incident {
                    id: 2,
                    cause: "path_dead".into(),
                    ..Incident::default()
                },
            ),
        ]),
        ..Service::default()
    }
}

const PAGES: [&str; 9] = [
    "/",
    "/page/page.js",
    "/page/page.css",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/status",
    "/api/incidents",
    "/api/incidents/2",
];

#[test]
fn every_page_answers_on_loopback() {
    let server = local(busy());
    server.metrics.upload_bytes("main").inc_by(42);

    let metrics = get(server.address, "/metrics");
    assert_eq!(metrics.status, 200);
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        metrics
            .body
            .contains("ftpulse_upload_bytes_total{route=\"main\"} 42\n")
    );

    assert_eq!(get(server.address, "/healthz").json()["healthy"], true);
    let readyz = get(server.address, "/readyz");
    assert_eq!(
        (readyz.status, readyz.json()["ready"].as_bool()),
        (200, Some(true))
    );

    let status = get(server.address, "/api/status");
    assert_eq!(status.status, 200);
    assert_eq!(status.header("content-type"), Some("application/json"));
    let status: Status = serde_json::from_str(&status.body).unwrap();
    assert_eq!(status.routes[0].waiting, 17);

    let incidents = get(server.address, "/api/incidents").json();
    assert_eq!(incidents.as_array().unwrap().len(), 2);
    assert_eq!(
        get(server.address, "/api/incidents/2").json()["cause"],
        "path_dead"
    );
}

#[test]
fn a_head_request_gets_the_head_of_the_page_and_no_body() {
    let server = local(busy());
    for path in PAGES {
        let full = get(server.address, path);
        let head = request(server.address, "HEAD", path, &[]);
        assert_eq!(head.status, full.status, "{path}");
        assert_eq!(head.body, "", "{path}");
        assert_eq!(
            head.header("content-type"),
            full.header("content-type"),
            "{path}"
        );
        assert!(head.header("content-length").is_some(), "{path}: {head:?}");
    }
}

#[test]
fn what_does_not_exist_or_takes_no_post_says_so_as_json() {
    let server = local(busy());
    for path in [
        "/nothing",
        "/api",
        "/api/incidents/3",
        "/api/incidents/x",
        "/api/incidents/-1",
        "/metrics/",
    ] {
        let reply = get(server.address, path);
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.json()["error"].is_string() && reply.json()["way_out"].is_string());
    }
    let reply = request(
        server.address,
        "POST",
        "/api/status",
        &[("Content-Length", "0")],
    );
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    assert!(reply.json()["way_out"].is_string());
    assert_eq!(
        request(server.address, "POST", "/api/nothing", &[]).status,
        404
    );
}

#[test]
fn every_answer_forbids_caching_sniffing_framing_and_scripts() {
    let server = local(busy());
    let evil: &[(&str, &str)] = &[("Host", "evil.example")];
    let refused = request(server.address, "GET", "/", evil);
    for reply in PAGES
        .map(|path| get(server.address, path))
        .iter()
        .chain([&refused])
    {
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

#[test]
fn a_name_that_was_rebound_to_this_machine_sees_nothing() {
    let server = local(busy());
    for path in PAGES {
        let reply = request(
            server.address,
            "GET",
            path,
            &[("Host", "evil.example:9188")],
        );
        assert_eq!(reply.status, 421, "{path}");
        assert!(
            reply.json()["error"]
                .as_str()
                .unwrap()
                .contains("evil.example")
        );
    }
    // The target names the host, or a second header does.
    let target = b"GET http://evil.example/api/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(server.address, target).status, 421);
    let twice = b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!([400, 421].contains(&raw(server.address, twice).status));
    let none = b"GET /api/status HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(server.address, none).status, 400);
    // Simple probes speak HTTP/1.0 without a Host.
    assert_eq!(
        raw(server.address, b"GET /healthz HTTP/1.0\r\n\r\n").status,
        200
    );
    for host in ["localhost:9188", "[::1]:9188", "127.0.0.1"] {
        assert_eq!(
            request(server.address, "GET", "/api/status", &[("Host", host)]).status,
            200
        );
    }
}

#[test]
fn off_loopback_without_a_token_only_metrics_and_probes_answer() {
    let server = serve("0.0.0.0:0", None, busy());
    for path in ["/metrics", "/healthz", "/readyz"] {
        let reply = request(server.address, "GET", path, &[("Host", "ftpulse:9188")]);
        assert_eq!(reply.status, 200, "{path}");
    }
    for path in [
        "/",
        "/page/page.js",
        "/api/status",
        "/api/incidents",
        "/api/incidents/1",
        "/metrics/../api/status",
    ] {
        let reply = get(server.address, path);
        assert_eq!(reply.status, 403, "{path}");
        assert!(
            reply.json()["way_out"]
                .as_str()
                .unwrap()
                .contains("http.token"),
            "{reply:?}"
        );
        assert!(!reply.body.contains("a&b.csv"));
    }
}

#[test]
fn a_configured_token_opens_the_api_and_nothing_else_does() {
    for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
        let server = serve(listen, Some("s3cret"), busy());
        let ask = |authorization| {
            request(
                server.address,
                "GET",
                "/api/status",
                &[("Authorization", authorization)],
            )
        };
        let refused = get(server.address, "/api/status");
        assert_eq!(refused.status, 401);
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer realm=\"ftpulse\"")
        );
        assert!(
            refused.json()["way_out"]
                .as_str()
                .unwrap()
                .contains("Bearer")
        );
        assert_eq!(get(server.address, "/api/incidents").status, 401);
        // The page itself holds no data and has to ask for the token, by whatever name it is called.
        let named: &[(&str, &str)] = &[("Host", "ftpulse:9188")];
        for part in ["/", "/page/page.js"] {
            assert_eq!(request(server.address, "GET", part, named).status, 200);
        }
        assert_eq!(
            request(server.address, "GET", "/api/status", named).status,
            421
        );
        for wrong in [
            "Bearer s3cre",
            "Bearer s3crets",
            "Bearer S3CRET",
            "Basic s3cret",
            "s3cret",
        ] {
            assert_eq!(ask(wrong).status, 401, "{wrong}");
        }
        assert_eq!(ask("Bearer s3cret").status, 200);
        let by_name: &[(&str, &str)] =
            &[("Host", "ftpulse:9188"), ("Authorization", "Bearer s3cret")];
        assert_eq!(
            request(server.address, "GET", "/api/status", by_name).status,
            200
        );
        assert_eq!(get(server.address, "/metrics").status, 200);
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_told_as_503_while_metrics_and_probes_go_on() {
    let server = local(busy());
    server.service.silent.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| get(server.address, "/api/status"));
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(get(server.address, path).status, 200, "{path}");
        }
        let reply = stuck.join().unwrap();
        assert_eq!(reply.status, 503);
        assert!(
            reply.json()["error"]
                .as_str()
                .unwrap()
                .contains("did not answer")
        );
    });
    // The page is there, and says it itself.
    assert_eq!(get(server.address, "/").status, 200);
    server.service.silent.store(false, Ordering::SeqCst);
    assert_eq!(get(server.address, "/api/status").status, 200);
}

#[test]
fn a_service_that_cannot_answer_says_why() {
    let server = local(Service {
        unavailable: Some("starting"),
        ..busy()
    });
    for path in ["/api/status", "/api/incidents", "/api/incidents/1"] {
        let reply = get(server.address, path);
        assert_eq!(
            (reply.status, reply.json()["error"].as_str()),
            (503, Some("starting"))
        );
    }
}

#[test]
fn probes_tell_a_loop_that_does_not_turn_and_reasons_for_not_being_ready() {
    let server = local(busy());
    server.service.stuck.store(true, Ordering::SeqCst);
    let health = get(server.address, "/healthz");
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["silent_seconds"], 7.5);

    server
        .service
        .reasons
        .lock()
        .unwrap()
        .push("route main: no folder /spool".into());
    let ready = get(server.address, "/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reasons"][0], "route main: no folder /spool");
    let status = get(server.address, "/api/status").json();
    assert_eq!(status["not_ready"], ready.json()["reasons"]);
}

#[test]
fn an_answer_that_panics_costs_one_connection() {
    let server = local(busy());
    server.service.panics.store(true, Ordering::SeqCst);
    let mut stream = connect(server.address);
    write!(
        stream,
        "GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    )
    .unwrap();
    // Closed or reset, without an answer.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
    server.service.panics.store(false, Ordering::SeqCst);
    assert_eq!(get(server.address, "/api/status").status, 200);
}

#[test]
fn an_address_that_is_taken_is_named_with_the_way_out() {
    let server = local(busy());
    let config = Http {
        listen: server.address,
        token: None,
    };
    let metrics = Metrics::new(&[], "1", "a");
    let error: HttpError = http::bind(&config, metrics, server.service.clone(), log())
        .map(|_| ())
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&server.address.to_string()), "{text}");
    assert!(
        text.contains("http.listen") && text.contains("ss -ltnp"),
        "{text}"
    );

    let foreign = Http {
        listen: "192.0.2.1:9188".parse().unwrap(),
        token: None,
    };
    let error = http::bind(
        &foreign,
        Metrics::new(&[], "1", "a"),
        server.service.clone(),
        log(),
    )
    .map(|_| ())
    .unwrap_err();
    assert!(error.to_string().contains("no such address"), "{error}");
}

#[test]
fn more_silent_clients_than_there_are_places_delay_the_others_only_until_their_timeout() {
    let server = local(busy());
    let silent: Vec<_> = (0..300).map(|_| connect(server.address)).collect();
    assert_eq!(get(server.address, "/healthz").status, 200);
    drop(silent);
}

#[test]
fn slow_silent_and_unread_clients_do_not_hold_the_exit() {
    let mut server = local(busy());
    let silent = connect(server.address);
    let mut half = connect(server.address);
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127")
        .unwrap();
    let mut idle = connect(server.address);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .unwrap();
    assert_ne!(idle.read(&mut [0; 16]).unwrap(), 0);
    // Asks for far more than the socket's buffers hold and reads nothing.
    let mut unread = connect(server.address);
    unread.set_nonblocking(true).unwrap();
    for _ in 0..2_000 {
        if unread
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            .is_err()
        {
            break;
        }
    }
    // And one whose answer never comes.
    server.service.silent.store(true, Ordering::SeqCst);
    let mut waiting = connect(server.address);
    waiting
        .write_all(b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .unwrap();

    server.stop();
    drop((silent, half, idle, unread, waiting));
}
