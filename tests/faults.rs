//! For every fault of the lab, on the first attempt: the file is delivered in the end, whole and
//! once, and never a torn file is visible under its final name.
//! `FTPULSE_TEST_FAULT=name` runs one of them.
#![cfg(feature = "lab")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::fs;

use ftpulse::lab::{Event, Expected, Fault, LabServer, Named};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir};

/// Large enough for every fault that strikes in mid-file, and for a window that closes.
const SIZE: usize = 8 << 20;

fn service_for(lab: &LabServer) -> Ftpulse {
    Settings::new()
        .quick()
        .key("routes.main.uploaders", "1")
        .route_to("main", &lab.url("in"), lab.password())
        .start()
}

/// The file is delivered in spite of the fault, and what was seen of it is what is expected.
fn one(named: &Named) {
    let root = temp_dir();
    let fault = Fault::from_name(named.name).unwrap().first(1);
    let lab = LabServer::start(root.path(), fault).unwrap();
    let mut events = lab.events();
    let service = service_for(&lab);
    let bytes = content(7, SIZE);
    service.put("main", "file.bin", &bytes);
    service.wait_delivered("file.bin");
    assert_eq!(fs::read(root.path().join("in/file.bin")).unwrap(), bytes);
    service.wait_spool_empty("main", PATIENCE);
    let seen = events.drain();
    assert!(
        seen.iter().any(|e| matches!(e, Event::Struck { .. })),
        "{}: it did not strike",
        named.name
    );
    let published = seen
        .iter()
        .filter(|e| matches!(e, Event::Renamed { to, .. } if to == "/in/file.bin"));
    assert_eq!(published.count(), 1, "{}: published once", named.name);
    let metrics = service.metrics();
    let resets = metrics.sum("ftpulse_uploader_resets_total", &[]);
    let timeouts = metrics.sum("ftpulse_timeouts_total", &[]);
    println!("{:24} resets {resets} timeouts {timeouts}", named.name);
    match named.expected {
        Expected::Deadlock => {
            assert!(resets >= 1.0, "{}: no reset", named.name);
            assert!(
                !service
                    .json("/api/incidents")
                    .as_array()
                    .unwrap()
                    .is_empty()
            );
        }
        Expected::Timeout => assert!(
            timeouts >= 1.0 && resets == 0.0,
            "{}: {timeouts} {resets}",
            named.name
        ),
        Expected::Error | Expected::Success => {
            assert_eq!((resets, timeouts), (0.0, 0.0), "{}", named.name)
        }
    }
}

#[test]
fn every_fault_ends_with_the_file_delivered_once() {
    let only = std::env::var("FTPULSE_TEST_FAULT").ok();
    let failed: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = Fault::names()
            .iter()
            .filter(|named| only.as_deref().is_none_or(|only| only == named.name))
            .map(|named| (named.name, scope.spawn(|| one(named))))
            .collect();
        all.into_iter()
            .filter_map(|(name, t)| t.join().err().map(|_| name))
            .collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
}
