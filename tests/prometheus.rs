//! A real Prometheus scrapes the service: `promtool check metrics` has no complaint, and what a
//! dashboard would ask (deliveries, resets by cause, releases by reason) can be queried. All that
//! the dashboard of `deploy/` does ask has an answer while a service heals a wedge and another one
//! waits in vain.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod deploy_common;
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::http;
use support::process::{Running, spawn, tied};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_for, wait_until};

/// A real Prometheus that scrapes its targets twice a second.
struct Prometheus {
    addr: SocketAddr,
    process: Running,
    dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(targets: &[SocketAddr]) -> Self {
        let dir = temp_dir();
        let config = dir.path().join("prometheus.yml");
        let targets: Vec<String> = targets.iter().map(|t| format!("\"{t}\"")).collect();
        let text = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\n\
             scrape_configs: [{{job_name: ftpulse, static_configs: [{{targets: [{}]}}]}}]\n",
            targets.join(",")
        );
        fs::write(&config, text).unwrap();
        // It takes no port 0: a free one may be gone before it binds, then another is tried.
        for _ in 0..5 {
            let addr = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let mut command = tied("prometheus");
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ));
            command.arg(format!("--web.listen-address={addr}"));
            let log = File::create(dir.path().join("log")).unwrap();
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            let mut process = spawn(command).expect("start prometheus: run `tests/run servers`");
            let ready = wait_for("prometheus is ready", PATIENCE, || {
                match http::get(addr, "/-/ready") {
                    Ok(answer) if answer.status == 200 => Some(true),
                    _ => process.ended().map(|_| false),
                }
            });
            if ready {
                return Self { addr, process, dir };
            }
        }
        panic!(
            "prometheus does not start:\n{}",
            fs::read_to_string(dir.path().join("log")).unwrap()
        );
    }

    /// The series that a query gives; it has to be one that Prometheus understands.
    fn ask(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = http::get(self.addr, &format!("/api/v1/query?query={encoded}")).unwrap();
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(json["status"], "success", "{query}: {}", answer.body);
        json["data"]["result"].as_array().unwrap().clone()
    }

    /// The value of a query that gives one number; `None` while it gives none.
    fn query(&self, query: &str) -> Option<f64> {
        let result = self.ask(query);
        assert!(result.len() < 2, "{query}: {result:?}");
        number(result.first()?)
    }

    /// Waits until a query gives at least that number.
    fn wait(&self, query: &str, least: f64) {
        wait_until(query, PATIENCE, || {
            self.query(query).is_some_and(|value| value >= least)
        });
    }
}

/// The value of one series of an answer.
fn number(series: &Value) -> Option<f64> {
    series["value"][1].as_str()?.parse().ok()
}

impl Drop for Prometheus {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            eprintln!(
                "{}",
                fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
        }
    }
}

/// `promtool check metrics` on a scrape.
fn check_metrics(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool: run `tests/run servers`");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.is_empty(),
        "promtool: {said}\n{text}"
    );
}

/// A service of which each wedge is a deadlock: no voucher, one place in the quarantine.
fn service(server: &Server) -> Ftpulse {
    Settings::new()
        .route("main", server, "")
        .quick()
        .key("heartbeat.vouchers", "none")
        .key("timers.reply", "60s")
        .key("routes.main.uploaders", 1)
        .key("quarantine.capacity", 1)
        .start()
}

/// Twice the session is frozen under a file: two resets; the second pair puts the first out.
fn wedge_twice(server: &Server, service: &Ftpulse) {
    for round in 1..=2 {
        let frozen = server.freeze_sessions();
        assert!(!frozen.is_empty(), "the service holds a session");
        let name = format!("wedged {round}");
        service.put("main", &name, &content(round, 100_000));
        wait_until("the reset is logged", PATIENCE, || {
            service.logged("uploader reset").len() as u64 >= round
        });
        service.wait_delivered(&name);
    }
}

#[test]
fn promtool_finds_no_fault_before_and_after_a_delivery() {
    let server = Server::pyftpdlib(Opts::default());
    let service = service(&server);
    check_metrics(&service.metrics().text);
    service.put("main", "a", &content(1, 100_000));
    service.wait_delivered("a");
    let metrics = service.wait_metrics("the delivery is counted", |metrics| {
        metrics.sum("ftpulse_files_total", &[("outcome", "delivered")]) >= 1.0
    });
    check_metrics(&metrics.text);
}

#[test]
fn prometheus_tells_deliveries_resets_and_releases() {
    let server = Server::pyftpdlib(Opts::default().process_per_session());
    let service = service(&server);
    let prometheus = Prometheus::start(&[service.http()]);
    prometheus.wait("up{job=\"ftpulse\"}", 1.0);
    // Counters are there before anything happened.
    prometheus.wait("sum(ftpulse_uploader_resets_total) == bool 0", 1.0);
    prometheus.wait("sum(ftpulse_quarantine_releases_total) == bool 0", 1.0);

    service.put("main", "first", &content(1, 100_000));
    service.wait_delivered("first");
    prometheus.wait(
        "sum(ftpulse_files_total{route=\"main\",outcome=\"delivered\"})",
        1.0,
    );

    wedge_twice(&server, &service);
    prometheus.wait("sum(ftpulse_uploader_resets_total{route=\"main\"})", 2.0);
    prometheus.wait(
        "sum(ftpulse_quarantine_releases_total{reason=\"full\"})",
        1.0,
    );
    prometheus.wait("ftpulse_quarantine_capacity", 1.0);
    prometheus.wait("sum(ftpulse_detection_seconds_count)", 2.0);
    prometheus.wait("sum(ftpulse_recovery_seconds_count)", 2.0);
    prometheus.wait("sum(ftpulse_files_total{outcome=\"delivered\"})", 3.0);
}

#[test]
fn the_deployed_configuration_is_valid_for_prometheus() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/prometheus/prometheus.yml"
    );
    let output = Command::new("promtool")
        .args(["check", "config", file])
        .output();
    let output = output.expect("start promtool: run `tests/run servers`");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What is rightly empty here: (what the query has in it, why).
const EMPTY: [(&str, &str); 2] = [
    (
        "sum by (reason) (increase(ftpulse_watchdog_restarts_total",
        "no watchdog is there",
    ),
    (
        "changes(process_start_time_seconds",
        "nothing was started anew",
    ),
];

#[test]
fn all_that_the_dashboard_asks_has_an_answer() {
    let server = Server::pyftpdlib(Opts::default().process_per_session());
    let service = service(&server);
    // It accepts, by the kernel, and never says a word: files wait, a timer ends each wait.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ftp://nobody@{}/", silent.local_addr().unwrap());
    let waiting = Settings::new()
        .route_to("later", &url, "x")
        .quick()
        .key("timers.reply", "300ms")
        .start();
    let prometheus = Prometheus::start(&[service.http(), waiting.http()]);
    prometheus.wait("sum(up{job=\"ftpulse\"})", 2.0);
    prometheus.wait("sum(ftpulse_uploader_resets_total) == bool 0", 1.0);
    waiting.put("later", "later", &content(4, 1000));
    service.put("main", "first", &content(1, 100_000));
    service.wait_delivered("first");
    wedge_twice(&server, &service);

    let dashboard = deploy_common::dashboard();
    // As Grafana does it where "All" is chosen; so wide that all of the test lies within.
    let substituted = |query: &str| {
        let every = query.replace("$instance", ".+").replace("$route", ".+");
        every.replace("$__rate_interval", "10m")
    };
    let queries = deploy_common::queries(&dashboard);
    assert!(queries.len() > 30, "{queries:?}");
    for query in queries.iter().map(|query| substituted(query)) {
        assert!(
            !query.contains('$'),
            "{query}: a variable that nobody fills in"
        );
        if EMPTY.iter().any(|(part, _)| query.contains(part)) {
            prometheus.ask(&query);
            continue;
        }
        wait_until(&query, PATIENCE, || {
            let answer = prometheus.ask(&query);
            answer.iter().filter_map(number).any(f64::is_finite)
        });
    }
    // What the variables offer: `label_values(series, label)`.
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(inside) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inside = inside.strip_prefix("label_values(").unwrap();
        let (series, label) = inside.trim_end_matches(')').rsplit_once(", ").unwrap();
        let answer = prometheus.ask(&substituted(series));
        assert_eq!(answer.len(), 2, "{series}: each service has a route");
        let offered = answer
            .iter()
            .filter_map(|one| one["metric"][label].as_str());
        assert_eq!(offered.count(), 2, "{label} of {series}");
    }
}
