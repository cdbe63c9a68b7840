//! What the comparison of two configurations tells, for each kind of setting.

use super::super::{Sources, keys, load};
use super::*;
use std::ffi::OsString;

fn config(variables: &[(&str, &str)]) -> Config {
    let of_route = [
        ("ROUTES__MAIN__SPOOL", "/spool"),
        ("ROUTES__MAIN__SERVER", "ftp://u@h/in"),
        ("ROUTES__MAIN__PASSWORD", "p"),
    ];
    let named = |(name, value): &(&str, &str)| {
        (
            OsString::from(format!("FTPULSE__{name}")),
            OsString::from(value),
        )
    };
    // The later one of a name wins, so that a test can write over the route.
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for (name, value) in of_route.iter().chain(variables).map(named) {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    load(Sources { file: None, env }).unwrap().config
}

const OTHER: [(&str, &str); 3] = [
    ("ROUTES__OTHER__SPOOL", "/other"),
    ("ROUTES__OTHER__SERVER", "ftp://u@h/other"),
    ("ROUTES__OTHER__PASSWORD", "p"),
];

#[test]
fn nothing_changes_between_equal_configurations_and_the_routes_stay_the_same_ones() {
    let old = config(&OTHER);
    let plan = plan(&old, &config(&OTHER));
    assert!(plan.added.is_empty() && plan.changed.is_empty() && plan.removed.is_empty());
    assert!(plan.applied.is_empty() && plan.needs_restart.is_empty());
    for (name, route) in &plan.config.routes {
        assert!(Arc::ptr_eq(route, &old.routes[name]));
    }
}

#[test]
fn routes_come_and_go() {
    let (one, two) = (config(&[]), config(&OTHER));
    let more = plan(&one, &two);
    assert_eq!(
        (more.added, more.removed),
        (vec!["other".to_owned()], vec![])
    );
    let less = plan(&two, &one);
    assert_eq!(
        (less.added, less.removed),
        (vec![], vec!["other".to_owned()])
    );
}

#[test]
fn a_route_that_changes_is_told_apart_from_one_that_goes_elsewhere() {
    let old = config(&[]);
    for (key, value, moved, elsewhere) in [
        ("PASSWORD", "another", false, false),
        ("UPLOADERS", "4", false, false),
        ("EXCLUDE", "*.bak", false, false),
        ("AFTER", "keep", false, false),
        ("SPOOL", "/elsewhere", true, false),
        ("SERVER", "ftp://u@other/in", true, true),
        ("SERVER", "ftp://u@h:2121/in", true, true),
        ("SERVER", "ftp://v@h/in", true, true),
        ("SERVER", "ftp://u@h/in/deeper", true, true),
    ] {
        let new = config(&[(&format!("ROUTES__MAIN__{key}"), value)]);
        let plan = plan(&old, &new);
        assert_eq!(plan.changed, ["main"], "{key} {value}");
        let (before, after) = (&old.routes["main"], &plan.config.routes["main"]);
        assert_eq!(moves(before, after), moved, "{key} {value}");
        assert_eq!(goes_elsewhere(before, after), elsewhere, "{key} {value}");
    }
}

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_was() {
    let old = config(&[]);
    let new = config(&[
        ("STATE__DIR", "/elsewhere"),
        ("HTTP__LISTEN", "127.0.0.1:1"),
        ("HTTP__TOKEN", "t"),
        ("HEARTBEAT__INTERVAL", "3s"),
        ("HEARTBEAT__VOUCHERS", "none"),
        ("RETRY__MAX", "1m"),
        ("LOG__LEVEL", "debug"),
        ("LOG__FORMAT", "text"),
    ]);
    let plan = plan(&old, &new);
    let names = [
        "heartbeat.interval",
        "state.dir",
        "http.listen",
        "log.format",
    ];
    assert_eq!(plan.needs_restart, names);
    let names = ["heartbeat.vouchers", "retry.max", "http.token", "log.level"];
    assert_eq!(plan.applied, names);
    let held = plan.config;
    assert_eq!(held.state_dir, old.state_dir);
    assert_eq!(held.http.listen, old.http.listen);
    assert_eq!(held.heartbeat.interval, old.heartbeat.interval);
    assert_eq!(held.log.format, old.log.format);
    assert_eq!(held.http.token, new.http.token);
    assert_eq!(held.retry, new.retry);
    assert!(!held.heartbeat.vouchers);
    // Named again as long as they differ from what runs.
    assert_eq!(super::plan(&held, &new).needs_restart.len(), 4);
}

#[test]
fn another_lease_needs_a_restart() {
    let lease = |term| config(&[("HEARTBEAT__POLICY", "lease"), ("HEARTBEAT__LEASE", term)]);
    let names = |old: &Config, new: &Config| plan(old, new).needs_restart;
    assert_eq!(names(&config(&[]), &lease("10s")), ["heartbeat.policy"]);
    assert_eq!(names(&lease("10s"), &lease("20s")), ["heartbeat.lease"]);
}

/// Every setting outside the routes is in one of both lists, or a change of it would go unsaid.
#[test]
fn no_setting_is_forgotten() {
    let listed: Vec<&str> = LIVE.iter().chain(AT_START).map(|(key, _)| *key).collect();
    for key in keys::of_service().filter(|key| key.leaf() != "token_file") {
        let times = listed.iter().filter(|name| **name == key.name).count();
        assert_eq!(times, 1, "{}", key.name);
    }
}
