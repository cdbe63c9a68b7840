//! The metrics as Prometheus sees them: complete from the start, lint-free, without surprises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

use std::io::Write;
use std::process::{Command, Stdio};

use ftpulse::core::names::{AttemptResult, Beat, Cause, FileOutcome, Phase, ReleaseReason};
use ftpulse::metrics::Metrics;

fn metrics() -> Metrics {
    Metrics::new(&["main", "second_route"], "1.2.3", "abc\"def")
}

/// The samples' values under this exact name and these labels, in any order of labels.
fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

#[test]
fn every_series_of_every_closed_set_exists_at_zero_from_the_start() {
    let text = metrics().render().unwrap();
    let mut expected = Vec::new();
    for route in ["main", "second_route"] {
        for o in FileOutcome::ALL {
            expected.push(format!(
                "ftpulse_files_total{{outcome=\"{o}\",route=\"{route}\"}}"
            ));
        }
        for r in AttemptResult::ALL {
            expected.push(format!(
                "ftpulse_upload_attempts_total{{result=\"{r}\",route=\"{route}\"}}"
            ));
        }
        for r in Beat::ALL {
            expected.push(format!(
                "ftpulse_beats_total{{result=\"{r}\",route=\"{route}\"}}"
            ));
        }
        for c in Cause::ALL {
            expected.push(format!(
                "ftpulse_uploader_resets_total{{cause=\"{c}\",route=\"{route}\"}}"
            ));
        }
        for p in Phase::ALL {
            expected.push(format!(
                "ftpulse_timeouts_total{{phase=\"{p}\",route=\"{route}\"}}"
            ));
        }
        for name in [
            "ftpulse_upload_bytes_total",
            "ftpulse_upload_duration_seconds_count",
            "ftpulse_spool_files",
            "ftpulse_spool_bytes",
            "ftpulse_dead_letters",
        ] {
            expected.push(format!("{name}{{route=\"{route}\"}}"));
        }
    }
    for c in Cause::ALL {
        expected.push(format!("ftpulse_detection_seconds_count{{cause=\"{c}\"}}"));
        expected.push(format!("ftpulse_recovery_seconds_count{{cause=\"{c}\"}}"));
    }
    for r in ReleaseReason::ALL {
        expected.push(format!(
            "ftpulse_quarantine_releases_total{{reason=\"{r}\"}}"
        ));
    }
    for name in [
        "ftpulse_quarantine_pairs",
        "ftpulse_quarantine_capacity",
        "ftpulse_quarantine_send_bytes",
        "ftpulse_ready",
        "ftpulse_stranded_workers",
        "ftpulse_log_dropped_total",
    ] {
        expected.push(name.to_owned());
    }
    for series in expected {
        assert_eq!(sample(&text, &series), Some(0.0), "{series} in\n{text}");
    }
    assert_eq!(
        sample(
            &text,
            "ftpulse_build_info{revision=\"abc\\\"def\",version=\"1.2.3\"}"
        ),
        Some(1.0)
    );
}

#[test]
fn timestamps_are_absent_until_known_and_the_oldest_pending_vanishes_with_the_last_file() {
    let metrics = metrics();
    let text = metrics.render().unwrap();
    assert!(!text.contains("timestamp_seconds"), "{text}");

    metrics.set_oldest_pending("main", Some(1_700_000_000.25));
    metrics.set_last_success("main", 1_700_000_001.5);
    let text = metrics.render().unwrap();
    let oldest = "ftpulse_oldest_pending_timestamp_seconds{route=\"main\"}";
    assert_eq!(sample(&text, oldest), Some(1_700_000_000.25));
    let success = "ftpulse_last_success_timestamp_seconds{route=\"main\"}";
    assert_eq!(sample(&text, success), Some(1_700_000_001.5));

    metrics.set_oldest_pending("main", None);
    metrics.set_oldest_pending("main", None);
    assert_eq!(sample(&metrics.render().unwrap(), oldest), None);
}

#[test]
fn clones_count_together_and_registries_do_not_leak_into_each_other() {
    let one = metrics();
    let other = metrics();
    one.clone().upload_bytes("main").inc_by(7);
    one.upload_bytes("main").inc_by(3);
    assert_eq!(one.upload_bytes("main").get(), 10);
    assert_eq!(other.upload_bytes("main").get(), 0);
    one.add_route("main");
    assert_eq!(
        one.upload_bytes("main").get(),
        10,
        "a known route keeps its values"
    );
}

#[test]
fn the_process_is_measured_too() {
    let text = metrics().render().unwrap();
    for name in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert!(sample(&text, name).is_some(), "{name} in\n{text}");
    }
    assert!(sample(&text, "process_resident_memory_bytes").unwrap() > 1e5);
}

#[test]
fn promtool_has_no_complaint() {
    let metrics = metrics();
    metrics.set_oldest_pending("main", Some(1_700_000_000.0));
    metrics.set_last_success("main", 1_700_000_000.0);
    metrics.upload_duration("main").observe(0.7);
    let text = metrics.render().unwrap();

    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run promtool ({e}): install the package `prometheus`"));
    tool.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let out = tool.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(
        out.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
