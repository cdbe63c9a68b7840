//! A service in any state that a test wants the page to show: the real HTTP side, in this process,
//! over a source that says what it was told. And what the tests ask of every page.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use ftpulse::clock;
use ftpulse::config::Secret;
use ftpulse::http::{self, Answer, Health, Retried, ServerHandle, Source, Token, Unavailable};
use ftpulse::metrics::Metrics;
use ftpulse::report::{
    Incident, PairStatus, QuarantineReport, QuarantineStatus, RetryRequest, RouteStatus,
    SlotStatus, SocketReport, Status, ThreadReport,
};
use slog::{Discard, Logger, o};

use crate::support::PATIENCE;
use crate::support::browser::Browser;

/// Foreign text that would run if it ever became markup.
pub const EVIL: &str = "<img src=x onerror=ran=1><script>ran=1</script>";

/// What the service says; a test may change it at any time.
#[derive(Default)]
pub struct Told {
    pub status: Status,
    pub incidents: Vec<Incident>,
    pub not_ready: Vec<String>,
    /// Answers to `/api/status` so far; each delivers one file more on the first route.
    pub answers: u64,
    /// Why there is no answer.
    pub unavailable: Option<String>,
}

struct Fake(Arc<Mutex<Told>>);

impl Fake {
    fn answer<T: 'static>(&self, of: impl FnOnce(&mut Told) -> T) -> Answer<'_, T> {
        let mut told = self.0.lock().unwrap();
        Box::pin(ready(match &told.unavailable {
            Some(why) => Err(Unavailable(why.clone())),
            None => Ok(of(&mut told)),
        }))
    }
}

impl Source for Fake {
    fn status(&self) -> Answer<'_, Status> {
        self.answer(|told| {
            told.answers += 1;
            told.status.at = clock::unix();
            if let Some(route) = told.status.routes.first_mut() {
                route.delivered += 1;
            }
            told.status.clone()
        })
    }
    fn incidents(&self) -> Answer<'_, Vec<Incident>> {
        self.answer(|told| told.incidents.clone())
    }
    fn incident(&self, _: u64) -> Answer<'_, Option<Incident>> {
        self.answer(|_| None)
    }
    fn retry(&self, _: RetryRequest) -> Answer<'_, Retried> {
        self.answer(|_| Retried::NoRoute { routes: Vec::new() })
    }
    fn healthy(&self) -> Health {
        Health::Turning
    }
    fn ready(&self) -> Vec<String> {
        self.0.lock().unwrap().not_ready.clone()
    }
}

/// A running service of that kind; it ends with this value.
pub struct Scene {
    /// Where it listens.
    pub address: SocketAddr,
    told: Arc<Mutex<Told>>,
    token: Token,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Scene {
    /// Serves what is told, on loopback.
    pub fn serve(told: Told, token: Option<&str>) -> Self {
        let token = Token::new(token.map(Secret::new));
        let its = token.clone();
        let told = Arc::new(Mutex::new(told));
        let source = Arc::new(Fake(Arc::clone(&told)));
        let (started_tx, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async {
                let log = Logger::root(Discard, o!());
                let metrics = Metrics::new(&[], "1", "a");
                let (server, address) =
                    http::bind_with(([127, 0, 0, 1], 0).into(), its, metrics, source, log).unwrap();
                started_tx.send((server.handle(), address)).unwrap();
                server.await.unwrap();
            });
        });
        let (handle, address) = started.recv_timeout(PATIENCE).expect("the server starts");
        Self {
            address,
            told,
            token,
            handle,
            thread: Some(thread),
        }
    }

    /// Changes what is told.
    pub fn tell<T>(&self, change: impl FnOnce(&mut Told) -> T) -> T {
        change(&mut self.told.lock().unwrap())
    }

    /// Another token holds from now on.
    pub fn set_token(&self, token: &str) {
        self.token.set(Some(Secret::new(token)));
    }

    /// Where the page is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A slot in the middle of a file.
pub fn working(slot: u32, file: &str, beats: &str) -> SlotStatus {
    SlotStatus {
        slot,
        epoch: 2,
        phase: "transfer".into(),
        file: Some(file.into()),
        bytes_sent: 700_000,
        file_bytes: Some(1_400_000),
        beats: beats.into(),
        ..SlotStatus::default()
    }
}

/// A slot without work.
pub fn idle(slot: u32) -> SlotStatus {
    SlotStatus {
        slot,
        epoch: 1,
        phase: "idle".into(),
        beats: "a".repeat(30),
        ..SlotStatus::default()
    }
}

/// A deadlock with all that can be known of it.
pub fn incident(id: u64, recovered: bool) -> Incident {
    let now = clock::unix();
    let socket = |port: u16| SocketReport {
        local: Some("10.0.3.7:40112".into()),
        peer: Some(format!("192.0.2.20:{port}")),
        state: "ESTAB".into(),
        unsent: 90_112,
        probes: 1,
        rtt: 0.0123,
        last_data_received_ago: 35.2,
        ..SocketReport::default()
    };
    Incident {
        id,
        route: "plant".into(),
        slot: 1,
        epoch: 3,
        file: Some(format!("2026/readings-{id}.csv")),
        phase: "final_reply".into(),
        cause: "silent_server".into(),
        last_sign_of_life: now - 70.0,
        detected_at: now - 62.0,
        recovered_at: recovered.then_some(now - 59.2),
        bytes_sent: 1 << 20,
        bytes_acked: 1 << 19,
        control: Some(socket(21)),
        data: Some(socket(40_021)),
        thread: Some(ThreadReport {
            state: "S".into(),
            syscall: Some(45),
            wait_channel: "wait_woken".into(),
            cpu_seconds: 0.31,
        }),
        quarantine: Some(QuarantineReport {
            entered: now - 62.0,
            peer: Some("control ESTAB, took 0 bytes".into()),
            ..QuarantineReport::default()
        }),
    }
}

/// A service in which everything that the page can show is to be seen.
pub fn everything() -> Told {
    let now = clock::unix();
    let calm = RouteStatus {
        name: "cdr".into(),
        destination: "billing@ftp.carrier.example:990".into(),
        direction: "put".into(),
        waiting: 1284,
        settling: 3,
        delivered: 48_211,
        delivered_bytes: 9 << 30,
        slots: vec![
            working(0, "2026/11/28/20/calls_000817.asn1", &"a".repeat(30)),
            working(1, "2026/11/28/20/calls_000818.asn1", "aaaaaaaavvvvaaaaaaaa"),
        ],
        ..RouteStatus::default()
    };
    let orders = RouteStatus {
        name: "orders".into(),
        destination: "shop@erp.example.org:21".into(),
        direction: "get".into(),
        delivered: 311,
        slots: vec![idle(0)],
        ..RouteStatus::default()
    };
    let silent = SlotStatus {
        failures: 3,
        ..working(0, "2026/readings-9.csv", "aaaaaaaaaaaaaaaavvvvvvvvvmmm")
    };
    let troubled = RouteStatus {
        name: "plant".into(),
        destination: "plant@192.0.2.20:21".into(),
        direction: "put".into(),
        waiting: 12,
        backing_off: 2,
        dead_letters: 1,
        delivered: 907,
        suspended: Some("two of its workers cannot end".into()),
        spool_problem: Some("no folder /spool/plant".into()),
        destination_problem: Some(
            "no session after 3 tries: 421 Too many connections (8); next try in 4.0 s".into(),
        ),
        last_failure: Some("2026/readings-8.csv: 550 no permission".into()),
        slots: vec![
            silent,
            SlotStatus {
                epoch: 4,
                beats: "aaaavvvvmmmmxaaaaaaaaa".into(),
                phase: "control_connect".into(),
                ..idle(1)
            },
        ],
        ..RouteStatus::default()
    };
    let pair = |incident: u64| PairStatus {
        incident,
        route: "plant".into(),
        entered: now - 400.0 + 100.0 * incident as f64,
        send_bytes: 90_112,
    };
    Told {
        status: Status {
            version: "1.2.3".into(),
            started_at: now - 93_784.0,
            incident_changes: 3,
            routes: vec![calm, orders, troubled],
            quarantine: QuarantineStatus {
                capacity: 16,
                pairs: (1..4).map(pair).collect(),
            },
            ..Status::default()
        },
        incidents: vec![incident(3, false), incident(2, true), incident(1, true)],
        ..Told::default()
    }
}

/// What is measured of contrast on a page.
#[derive(Debug)]
pub struct Contrast {
    pub texts: u64,
    pub least: f64,
    pub shapes: u64,
    pub least_of_shapes: f64,
    pub faults: Vec<String>,
}

/// The contrast of every text and of every shape that says something, by WCAG 2 from the styles
/// that hold: 4.5 for text, 3 for large text and for shapes.
pub fn contrast(browser: &Browser) -> Contrast {
    let found = browser.run(include_str!("contrast.js"));
    let faults = found["faults"].as_array().unwrap().iter();
    Contrast {
        texts: found["texts"].as_u64().unwrap(),
        least: found["least"].as_f64().unwrap(),
        shapes: found["shapes"].as_u64().unwrap(),
        least_of_shapes: found["least_of_shapes"].as_f64().unwrap_or(21.0),
        faults: faults.map(ToString::to_string).collect(),
    }
}
