//! The status as tables: a pure function of the service's answer, the time and the look.

use std::fmt::Write;

use crate::cli::look::{Look, Tone};
use crate::cli::table::{Cell, Column, names, numbers, table, words};
use crate::cli::words::{size, span};
use crate::log::escape;
use crate::report::{QuarantineStatus, RouteStatus, SlotStatus, Status};

const ROUTES: [Column; 7] = [
    words("ROUTE"),
    names("DESTINATION"),
    words("STATE"),
    numbers("SETTLING"),
    numbers("WAITING"),
    numbers("BACKING OFF"),
    numbers("DELIVERED"),
];

const SLOTS: [Column; 8] = [
    words("ROUTE"),
    numbers("SLOT"),
    numbers("EPOCH"),
    words("PHASE"),
    numbers("MISSED"),
    numbers("SENT"),
    numbers("DONE"),
    names("FILE"),
];

const PAIRS: [Column; 4] = [
    numbers("INCIDENT"),
    words("ROUTE"),
    numbers("HELD FOR"),
    numbers("UNSENT"),
];

/// The whole page; `now` is Unix time.
pub fn page(status: &Status, now: f64, look: Look) -> String {
    let mut out = head(status, now, look);
    out.push('\n');
    if status.routes.is_empty() {
        out.push_str("no routes\n");
        return out;
    }
    let routes: Vec<_> = status.routes.iter().map(route).collect();
    out.push_str(&table(&ROUTES, &routes, look));
    for route in &status.routes {
        troubles(&mut out, route, look);
    }
    let slots: Vec<_> = status.routes.iter().flat_map(slots).collect();
    if !slots.is_empty() {
        out.push('\n');
        out.push_str(&table(&SLOTS, &slots, look));
    }
    if !status.quarantine.pairs.is_empty() {
        out.push('\n');
        out.push_str(&table(&PAIRS, &pairs(&status.quarantine, now), look));
    }
    out
}

fn head(status: &Status, now: f64, look: Look) -> String {
    let name = look.paint(Tone::Head, &format!("ftpulse {}", escape(&status.version)));
    let up = span(now - status.started_at);
    let draining = if status.draining {
        let what = ", draining: what is in work is finished, nothing new is begun";
        look.paint(Tone::Watch, what)
    } else {
        String::new()
    };
    let (held, places) = (status.quarantine.pairs.len(), status.quarantine.capacity);
    let stranded = match status.stranded_workers {
        0 => "no stranded workers".to_owned(),
        1 => look.paint(Tone::Bad, "1 stranded worker"),
        more => look.paint(Tone::Bad, &format!("{more} stranded workers")),
    };
    let journal = status.journal_problem.as_ref().map(|why| {
        let text = format!(
            "no new work is taken, the journal cannot be written: {}\n",
            escape(why)
        );
        look.paint(Tone::Bad, &text)
    });
    format!(
        "{name}, up {up}{draining}\nquarantine {held} of {places} pairs, {stranded}\n{}",
        journal.unwrap_or_default()
    )
}

fn route(route: &RouteStatus) -> Vec<Cell> {
    let state = if route.suspended.is_some() {
        Cell::toned("suspended", Tone::Bad)
    } else if route.spool_problem.is_some() {
        Cell::toned("spool problem", Tone::Bad)
    } else if route.destination_problem.is_some() {
        Cell::toned("no session", Tone::Bad)
    } else {
        Cell::new("ok")
    };
    vec![
        Cell::new(&route.name),
        Cell::new(&route.destination),
        state,
        Cell::new(route.settling),
        Cell::new(route.waiting),
        Cell::new(route.backing_off),
        Cell::new(route.delivered),
    ]
}

/// The whole reason of each trouble, on lines of their own: it can be long.
fn troubles(out: &mut String, route: &RouteStatus, look: Look) {
    let suspended = ("is suspended", &route.suspended);
    let spool = ("has a spool problem", &route.spool_problem);
    let destination = ("gets", &route.destination_problem);
    let failure = ("failed last with", &route.last_failure);
    for (what, why) in [suspended, spool, destination, failure] {
        if let Some(why) = why {
            let text = format!("{} {what}: {}", escape(&route.name), escape(why));
            let _ = writeln!(out, "{}", look.paint(Tone::Bad, &text));
        }
    }
}

fn slots(route: &RouteStatus) -> impl Iterator<Item = Vec<Cell>> {
    route.slots.iter().map(|slot| {
        let missed = if slot.failures > 0 {
            Tone::Watch
        } else {
            Tone::Plain
        };
        // What an idle worker sent is of a file that is done.
        let sent = slot.file.as_ref().map(|_| size(slot.bytes_sent));
        vec![
            Cell::new(&route.name),
            Cell::new(slot.slot),
            Cell::new(slot.epoch),
            Cell::new(&slot.phase),
            Cell::toned(slot.failures, missed),
            Cell::or_dash(sent.as_deref()),
            Cell::or_dash(progress(slot).as_deref()),
            Cell::or_dash(slot.file.as_deref()),
        ]
    })
}

/// How much of its file a slot has sent. The kernel may hold the last part of it still.
fn progress(slot: &SlotStatus) -> Option<String> {
    let whole = slot.file_bytes.filter(|bytes| *bytes > 0)?;
    let percent = u128::from(slot.bytes_sent.min(whole)) * 100 / u128::from(whole);
    Some(format!("{percent}%"))
}

fn pairs(quarantine: &QuarantineStatus, now: f64) -> Vec<Vec<Cell>> {
    let pairs = quarantine.pairs.iter().map(|pair| {
        vec![
            Cell::new(pair.incident),
            Cell::new(&pair.route),
            Cell::new(span(now - pair.entered)),
            Cell::new(size(pair.send_bytes)),
        ]
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PairStatus;

    fn status() -> Status {
        let working = SlotStatus {
            epoch: 1,
            phase: "transfer".into(),
            file: Some("big.bin".into()),
            bytes_sent: 3 << 19,
            file_bytes: Some(4 << 20),
            failures: 2,
            ..Default::default()
        };
        let idle = SlotStatus {
            slot: 1,
            epoch: 2,
            phase: "idle".into(),
            ..Default::default()
        };
        let route = RouteStatus {
            name: "main".into(),
            destination: "user@ftp.example.net:21".into(),
            settling: 3,
            waiting: 12,
            backing_off: 1,
            delivered: 3456,
            slots: vec![working, idle],
            ..Default::default()
        };
        Status {
            version: "0.1.0".into(),
            started_at: 1000.0,
            routes: vec![route],
            quarantine: QuarantineStatus {
                capacity: 16,
                pairs: vec![PairStatus {
                    incident: 7,
                    route: "main".into(),
                    entered: 1100.0,
                    send_bytes: 2048,
                }],
            },
            ..Default::default()
        }
    }

    #[test]
    fn everything_that_is_known_is_on_the_page() {
        let expected = "\
ftpulse 0.1.0, up 3m 20s
quarantine 1 of 16 pairs, no stranded workers

ROUTE  DESTINATION              STATE  SETTLING  WAITING  BACKING OFF  DELIVERED
main   user@ftp.example.net:21  ok            3       12            1       3456

ROUTE  SLOT  EPOCH  PHASE     MISSED     SENT  DONE  FILE
main      0      1  transfer       2  1.5 MiB   37%  big.bin
main      1      2  idle           0        -     -  -

INCIDENT  ROUTE  HELD FOR   UNSENT
       7  main     1m 40s  2.0 KiB
";
        assert_eq!(page(&status(), 1200.0, Look::default()), expected);
    }

    #[test]
    fn troubles_are_named_with_their_whole_reason() {
        let mut status = status();
        status.draining = true;
        status.stranded_workers = 2;
        status.routes[0].suspended = Some("two of its workers cannot end".into());
        status.routes[0].spool_problem = Some("gone\x1b[2J".into());
        let told = page(&status, 1200.0, Look::default());
        for text in [
            "up 3m 20s, draining: what is in work is finished",
            "2 stranded workers",
            "  suspended  ",
            "\nmain is suspended: two of its workers cannot end\n",
            "\nmain has a spool problem: gone\\x1b[2J\n",
        ] {
            assert!(told.contains(text), "{text} in {told}");
        }
        let red = Look {
            color: true,
            ..Look::default()
        };
        assert!(page(&status, 1200.0, red).contains("\x1b[1;31mmain is suspended"));
    }

    #[test]
    fn long_names_are_cut_to_the_terminal_and_nowhere_else() {
        let mut status = status();
        let name = format!("2026/{}/end.csv", "x".repeat(90));
        status.routes[0].slots[0].file = Some(name.clone());
        assert!(page(&status, 1200.0, Look::default()).contains(&name));
        let narrow = Look {
            width: Some(80),
            color: false,
        };
        let told = page(&status, 1200.0, narrow);
        assert!(
            told.lines().all(|line| line.chars().count() <= 80),
            "{told}"
        );
        assert!(told.contains("2026/xxx") && told.contains("xxx/end.csv"));
    }

    #[test]
    fn a_service_without_routes_says_so() {
        let told = page(&Status::default(), 0.0, Look::default());
        assert!(told.ends_with("\nno routes\n"), "{told}");
    }
}
