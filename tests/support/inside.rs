//! The service within the test's own process, so that its parts can be broken one by one:
//! configured like the real one, with its HTTP side, on a thread of its own.

#![allow(dead_code)] // each test file uses its own part

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use ftpulse::app::{self, End};
use ftpulse::config::{self, Sources};
use ftpulse::metrics::Metrics;
use ftpulse::pulse::Sabotage;
use serde_json::Value;
use tokio::sync::oneshot;

use super::support::service::Settings;
use super::support::{PATIENCE, http, wait_for, wait_until};

/// A running service; its folders go with it.
pub struct Inside {
    settings: Settings,
    /// Its metrics, at first hand.
    pub metrics: Metrics,
    http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<End, String>>>,
}

impl Inside {
    /// Starts it; returns when it listens.
    pub fn start(settings: Settings, sabotage: &Sabotage) -> Self {
        let env = settings
            .vars()
            .iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        let config = config::load(Sources { file: None, env }).unwrap().config;
        let routes: Vec<&str> = config.routes.keys().map(String::as_str).collect();
        let metrics = Metrics::new(&routes, "0", "test");
        let (tell, listening) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (its, sabotage) = (metrics.clone(), sabotage.clone());
        let thread = std::thread::spawn(move || {
            let log = slog::Logger::root(slog::Discard, slog::o!());
            actix_rt::System::new().block_on(async move {
                let stop = async move { drop(stopped.await) };
                let told = move |address| {
                    let _ = tell.send(address);
                };
                app::run_sabotaged(config, its, log, stop, told, sabotage).await
            })
        });
        let http = listening.recv_timeout(PATIENCE).expect("it listens");
        Self {
            settings,
            metrics,
            http,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Puts a whole file into the spool at once.
    pub fn put(&self, route: &str, name: &str, bytes: &[u8]) {
        let spool = self.settings.spool(route);
        let staged = spool.join(format!(".{name}"));
        std::fs::write(&staged, bytes).unwrap();
        std::fs::rename(staged, spool.join(name)).unwrap();
    }

    /// Files of a route that were delivered.
    pub fn delivered(&self, route: &str) -> u64 {
        let outcome = ftpulse::core::names::FileOutcome::Delivered;
        self.metrics.files(route, outcome).get()
    }

    fn status(&self) -> Option<Value> {
        let answer = http::get(self.http, "/api/status").ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// What `/api/status` says of a route.
    pub fn route(&self, name: &str) -> Value {
        let status = wait_for("the status page answers", PATIENCE, || self.status());
        let routes = status["routes"].as_array().expect("routes");
        routes
            .iter()
            .find(|r| r["name"] == name)
            .expect("the route")
            .clone()
    }

    /// The incidents that `/api/incidents` tells.
    pub fn incidents(&self) -> Vec<Value> {
        let answer = http::get(self.http, "/api/incidents").expect("it answers");
        serde_json::from_str(&answer.body).expect("a list")
    }

    /// What it says of the slots of route `main`.
    pub fn slots(&self) -> Vec<Value> {
        self.route("main")["slots"]
            .as_array()
            .expect("slots")
            .clone()
    }

    /// Waits for a state of these slots.
    pub fn wait_slots(&self, fits: impl Fn(&[Value]) -> bool) {
        wait_until("the slots are as they shall be", PATIENCE, || {
            fits(&self.slots())
        });
    }

    /// Ends it in order; tells how it ended.
    pub fn end(mut self) -> End {
        drop(self.stop.take());
        self.ended()
    }

    /// Waits for its end; tells how it ended.
    pub fn ended(mut self) -> End {
        let thread = self.thread.take().expect("ended once");
        wait_until("the service ends", PATIENCE, || thread.is_finished());
        thread
            .join()
            .expect("the service does not panic")
            .expect("the service ran")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Panicking tests only; the System ends with its thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
