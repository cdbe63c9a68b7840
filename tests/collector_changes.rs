//! A route that changes, goes and comes back while the collector runs: what is in hand goes by the
//! new settings, and a spool that is let go can be taken by others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod collector_common;
mod spool_common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use collector_common::*;
use ftpulse::actors::collector::{RouteSpool, Step, Took};
use ftpulse::config::Order;
use ftpulse::spool::finish::Finished;
use ftpulse::spool::lock::FolderLock;
use spool_common::{age, rename_in, route};

#[test]
fn new_settings_hold_for_what_is_in_hand_and_for_what_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = route(dir.path());
    settings.settle = Duration::ZERO;
    settings.order = Order::Name;
    for (n, name) in ["a.csv", "b.bak", "c.csv", "d.bak", "e.csv"]
        .iter()
        .enumerate()
    {
        old(&settings.spool.join(name), "x");
        age(&settings.spool.join(name), 100 + n as u64);
    }
    let mut rig = Rig::new(settings.clone());
    rig.want(3);
    let offered = rig.found(3);
    let names: Vec<&str> = offered.iter().map(|file| &*file.path).collect();
    assert_eq!(names, ["a.csv", "b.bak", "c.csv"]);

    settings.exclude = vec!["*.bak".into()];
    settings.order = Order::Oldest;
    rig.change(Step::Renew(Arc::new(settings)));
    assert_eq!(rig.changed(), Took::Renew);
    // No credit is left of before; the first one is in work and so not given back.
    rig.change(Step::GiveBack(offered[1..].to_vec()));
    rig.nothing_found();
    rig.want(10);
    assert_eq!(rig.paths(2), ["e.csv", "c.csv"]);
    rig.finish(&offered[0], 7);
    assert_eq!(rig.finished().outcome, Ok(Finished::Deleted));
    rig.nothing_found();
}

#[test]
fn another_time_to_settle_holds_for_what_is_settling() {
    let dir = tempfile::tempdir().unwrap();
    let settings = route(dir.path());
    let mut rig = Rig::new(slow(settings.clone()));
    let spool = rig.route.spool.clone();
    rig.want(10);
    fs::write(spool.join("a"), "x").unwrap();
    rig.state("the file", |state| state.files == 1);
    rig.change(Step::Renew(Arc::new(settings)));
    assert_eq!(rig.changed(), Took::Renew);
    rig.want(10);
    assert_eq!(rig.paths(1), ["a"]);
}

#[test]
fn a_route_that_is_shut_lets_its_spool_go_and_can_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let settings = route(dir.path());
    let mut rig = Rig::new(settings.clone());
    let spool = rig.route.spool.clone();
    rig.state("the first scan", |state| state.files == 0);
    assert!(FolderLock::acquire(&spool, "spool").is_err());
    rig.change(Step::Shut);
    assert_eq!(rig.changed(), Took::Shut);
    drop(FolderLock::acquire(&spool, "spool").expect("a free spool"));
    rename_in(&spool, "a", "x");
    rig.nothing_found();

    rig.change(Step::Open(Box::new(RouteSpool {
        route: Arc::new(settings),
        lock: None,
        kept: Vec::new(),
        rows: None,
    })));
    assert_eq!(rig.changed(), Took::Open(Ok(())));
    rig.want(10);
    assert_eq!(rig.paths(1), ["a"]);
    assert!(FolderLock::acquire(&spool, "spool").is_err());
}
