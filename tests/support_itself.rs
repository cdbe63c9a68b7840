//! The tests' own instruments can say no: the watcher sees a torn file, the metrics reader
//! reads what Prometheus would, a wait ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::time::Duration;

use support::http::Metrics;
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, temp_dir, wait_until};

#[test]
fn a_watcher_accepts_files_that_are_renamed_into_place_whole() {
    let dir = temp_dir();
    let watcher = Watcher::start(dir.path(), is_final_name);
    for version in [content(1, 300_000), content(2, 10)] {
        watcher.allow("a", &version);
        fs::write(dir.path().join(".a.part"), &version).unwrap();
        fs::rename(dir.path().join(".a.part"), dir.path().join("a")).unwrap();
    }
    wait_until("both renames are counted", PATIENCE, || {
        watcher.deliveries("a") == 2
    });
    assert_eq!(
        watcher.assert_clean().into_iter().collect::<Vec<_>>(),
        ["a"]
    );
}

#[test]
fn a_watcher_sees_a_file_that_is_written_under_its_final_name() {
    let dir = temp_dir();
    let watcher = Watcher::start(dir.path(), is_final_name);
    watcher.allow("a", b"whole");
    fs::write(dir.path().join("a"), b"whole").unwrap();
    wait_until("it is told", PATIENCE, || !watcher.violations().is_empty());
}

#[test]
fn a_watcher_sees_half_a_file_even_where_it_was_renamed_into_a_new_folder() {
    let dir = temp_dir();
    let watcher = Watcher::start(dir.path(), is_final_name);
    watcher.allow("deep/er/a", b"whole");
    fs::create_dir_all(dir.path().join("deep/er")).unwrap();
    fs::write(dir.path().join("deep/er/.a"), b"wh").unwrap();
    fs::rename(dir.path().join("deep/er/.a"), dir.path().join("deep/er/a")).unwrap();
    wait_until("it is told", PATIENCE, || !watcher.violations().is_empty());
    assert_eq!(
        watcher.violations(),
        ["deep/er/a: 2 bytes that are no allowed file"]
    );
}

#[test]
fn metrics_are_read_with_their_labels() {
    let text = "# HELP a_total x\n# TYPE a_total counter\na_total{route=\"x\",cause=\"q\\\"}, \"} 2\n\
                a_total{route=\"y\",cause=\"z\"} 3.5\nb 1e3\n";
    let metrics = Metrics::parse(text.into());
    assert_eq!(metrics.sum("a_total", &[]), 5.5);
    assert_eq!(metrics.get("a_total", &[("cause", "q\"}, ")]), Some(2.0));
    assert_eq!(metrics.get("a_total", &[]), None);
    assert_eq!(metrics.get("b", &[]), Some(1000.0));
    assert!(!metrics.has("c"));
}

#[test]
#[should_panic(expected = "in vain until pigs fly")]
fn a_wait_ends_and_says_for_what_it_waited() {
    wait_until("pigs fly", Duration::from_millis(20), || false);
}
