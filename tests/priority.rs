//! `priority`: where routes share the seats of a destination, the higher one has them first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;

use support::content;
use support::servers::{Opts, Server};
use support::service::Settings;

const FILES: usize = 24;

/// One seat. The limit makes the higher route's work last 12 s, longer than the turn after which
/// routes of one priority give the seat to each other.
#[test]
fn the_higher_route_keeps_the_only_seat_until_it_has_nothing_left() {
    let server = Server::pyftpdlib(Opts::default().per_ip(1));
    let mut settings = Settings::new().quick();
    for (name, priority) in [("low", -5), ("high", 5)] {
        settings = settings
            .route(name, &server, "in")
            .key(&format!("routes.{name}.uploaders"), 1)
            .key(&format!("routes.{name}.priority"), priority)
            .key(&format!("routes.{name}.rate_limit"), "1KiB");
        for number in 0..FILES {
            let file = settings.spool(name).join(format!("{name}-{number:02}"));
            fs::write(file, content(number as u64, 512)).unwrap();
        }
    }
    let service = settings.start();
    for name in ["high", "low"] {
        service.wait_spool_empty(name, support::PATIENCE);
    }
    let order: Vec<String> = service
        .logged("file delivered")
        .iter()
        .map(|line| line["route"].as_str().unwrap().to_owned())
        .collect();
    println!("{}", order.join(" "));
    assert_eq!(order.len(), 2 * FILES);
    // Who came first may be the low one: its files were found first, or its login was granted.
    let mine = order
        .iter()
        .enumerate()
        .filter(|(_, route)| *route == "high");
    let at: Vec<usize> = mine.map(|(n, _)| n).collect();
    let together = at.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(together, "the low route came between: {order:?}");
    assert!(
        *at.last().unwrap() < 2 * FILES - 1,
        "the high one came last: {order:?}"
    );
}
