//! The style that can be held by a test: dependencies point downwards only, what is banned
//! stays out, files begin with their contract and stay small, the README keeps up with the
//! metrics. Each rule is also shown a fault that it must find.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

#[path = "support/source.rs"]
mod source;

#[path = "support/house.rs"]
mod house;

use std::collections::BTreeSet;

use house::{against_the_house, is_word, places};
use source::{Source, sources};

/// Uses against the house, each with its reason: (module, what it uses, why).
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The whole of a file, `product` only, or all but one place.
struct Ban {
    text: &'static str,
    why: &'static str,
    /// Paths with this beginning may.
    but: &'static str,
    /// Test modules and tests/ too.
    tests_too: bool,
}

const BANS: &[Ban] = &[
    Ban {
        text: "unsafe",
        why: "unsafe lives in src/sys alone",
        but: "src/sys/",
        tests_too: true,
    },
    Ban {
        text: "do_send(",
        why: "it ignores the mailbox's capacity",
        but: "-",
        tests_too: true,
    },
    Ban {
        text: ".unwrap()",
        why: "name the error or the invariant",
        but: "-",
        tests_too: false,
    },
    Ban {
        text: "panic!",
        why: "return an error",
        but: "-",
        tests_too: false,
    },
    Ban {
        text: "todo!",
        why: "nothing is half done",
        but: "-",
        tests_too: true,
    },
    Ban {
        text: "unimplemented!",
        why: "nothing is half done",
        but: "-",
        tests_too: true,
    },
    Ban {
        text: "thread::sleep",
        why: "wait for an event",
        but: "-",
        tests_too: true,
    },
    Ban {
        text: "#[ignore",
        why: "a test runs or goes",
        but: "-",
        tests_too: true,
    },
    Ban {
        text: "Instant::now",
        why: "ask clock.rs",
        but: "src/clock.rs",
        tests_too: true,
    },
    Ban {
        text: "SystemTime::now",
        why: "ask clock.rs",
        but: "src/clock.rs",
        tests_too: true,
    },
];

/// What core must not touch beyond other crates: the outside world.
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
    "Instant",
    "SystemTime",
    "Mutex",
    "println!",
    "eprintln!",
];

/// Lines of a file of src at most, its test modules not counted.
const LINES_MAX: usize = 450;
/// Lines of a file of tests at most.
const TEST_LINES_MAX: usize = 900;

const PHASES: &[&str] = &[
    "idle",
    "dns",
    "control_connect",
    "greeting",
    "tls",
    "reply",
    "data_connect",
    "listen",
    "lock",
    "local_file",
    "hash",
    "transfer",
    "drain",
    "final_reply",
    "tls_close",
    "quit",
];

const CAUSES: &[&str] = &[
    "path_dead",
    "zero_window",
    "silent_server",
    "no_data_connection",
    "disk",
    "dns",
    "cpu_loop",
    "lock",
    "unknown",
];

/// Crates that Cargo.toml names, as code spells them.
fn crates() -> Vec<String> {
    let manifest = include_str!("../Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let lines = dependencies
        .lines()
        .take_while(|line| !line.starts_with("[lints"));
    lines
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect()
}

fn impure_core(files: &[Source]) -> Vec<String> {
    let others: Vec<String> = crates().iter().map(|name| format!("{name}::")).collect();
    let outside = OUTSIDE
        .iter()
        .copied()
        .chain(others.iter().map(String::as_str));
    let outside: Vec<&str> = outside.collect();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.modules()[0] == "core") {
        for text in &outside {
            // `config::` after `crate::` or another path is a module, not the crate.
            let foreign = places(&file.product, text)
                .filter(|at| !text.ends_with("::") || !file.product[..*at].ends_with("::"));
            faults
                .extend(foreign.map(|at| format!("{}: core must not use {text}", file.place(at))));
        }
    }
    faults
}

fn banned(files: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        let is_test = file.path.starts_with("tests/");
        for ban in BANS {
            if file.path.starts_with(ban.but) || is_test && !ban.tests_too {
                continue;
            }
            let code = if ban.tests_too {
                &file.code
            } else {
                &file.product
            };
            let found = places(code, ban.text);
            faults.extend(found.map(|at| format!("{}: {}: {}", file.place(at), ban.text, ban.why)));
        }
    }
    faults
}

fn without_contract(files: &[Source]) -> Vec<String> {
    let bare = files.iter().filter(|file| !file.text.starts_with("//!"));
    bare.map(|file| format!("{}: begins without its contract (`//!`)", file.path))
        .collect()
}

fn too_long(files: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        let (lines, most) = if file.path.starts_with("tests/") {
            (file.text.lines().count(), TEST_LINES_MAX)
        } else {
            let tested = file.product_end();
            (file.text.lines().take(tested).count(), LINES_MAX)
        };
        if lines > most {
            faults.push(format!("{}: {lines} lines, two rooms", file.path));
        }
    }
    faults
}

/// Metric names in the string literals of the metrics module.
fn metric_names(files: &[Source]) -> BTreeSet<String> {
    let own = files.iter().filter(|file| file.modules()[0] == "metrics");
    let texts = own.flat_map(|file| file.text.split("\"ftpulse_").skip(1));
    let tail = |text: &str| text.bytes().take_while(|b| is_word(*b)).count();
    texts
        .map(|text| format!("ftpulse_{}", &text[..tail(text)]))
        .collect()
}

fn untold(readme: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    names
        .filter(|name| places(readme, name).next().is_none())
        .map(|name| format!("README.md does not name {name}"))
        .collect()
}

fn everything() -> Vec<Source> {
    let mut files = sources("src");
    files.extend(sources("tests"));
    files
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn dependencies_point_downwards() {
    none(against_the_house(&sources("src"), EXCEPTIONS));
}

#[test]
fn core_knows_nothing_but_std() {
    none(impure_core(&sources("src")));
}

#[test]
fn what_is_banned_stays_out() {
    none(banned(&everything()));
}

#[test]
fn every_file_begins_with_its_contract() {
    none(without_contract(&everything()));
}

#[test]
fn no_file_is_two_rooms() {
    none(too_long(&everything()));
}

#[test]
fn the_readme_names_every_metric_phase_and_cause() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let metrics = metric_names(&sources("src"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap_or_default();
    if metrics.is_empty() && readme.is_empty() {
        return; // neither is written yet: there is nothing to keep equal
    }
    assert!(!metrics.is_empty(), "no metric name found in src/metrics");
    let closed = PHASES.iter().chain(CAUSES).map(|name| (*name).to_owned());
    none(untold(&readme, metrics.into_iter().chain(closed)));
}

// Each rule finds its fault.

#[test]
fn an_upward_or_sideways_use_is_found_in_every_spelling() {
    let faulty = [
        ("src/sys/a.rs", "use crate::worker::X;"),
        ("src/spool/a.rs", "use crate::{config::Y, ftp::{A, B}};"),
        ("src/ftp/a.rs", "fn f() { crate::worker::g() }"),
        (
            "src/worker/deep/a.rs",
            "use super::super::super::actors::Z;",
        ),
        ("src/metrics.rs", "use super::log;"),
        ("src/stranger.rs", ""),
    ];
    for (path, text) in faulty {
        let found = against_the_house(&[Source::new(path, text)], &[]);
        assert_eq!(found.len(), 1, "{path} {text}: {found:?}");
    }
    let fine = Source::new(
        "src/worker/a.rs",
        "use crate::{core::ring, worker::b}; use super::c; // crate::app\n\
         const S: &str = \"crate::app\"; #[cfg(test)] mod tests { use crate::lab; }",
    );
    none(against_the_house(&[fine], &[]));
    let excused = || Source::new("src/sys/a.rs", "use crate::worker::X;");
    none(against_the_house(
        &[excused()],
        &[("sys", "worker", "shown")],
    ));
    let stale = [("sys", "worker", "shown"), ("sys", "app", "not needed")];
    assert_eq!(against_the_house(&[excused()], &stale).len(), 1);
}

#[test]
fn the_house_is_read_from_the_root_of_the_crate() {
    let groups = house::groups("//! x\n\npub mod a;\n#[cfg(y)]\npub mod b;\n\n\npub mod c;\n");
    assert_eq!(groups, [vec!["a", "b"], vec!["c"]]);
    let ours = house::groups(include_str!("../src/lib.rs"));
    assert!(ours.len() > 5, "{ours:?}");
}

#[test]
fn a_core_that_reaches_outside_is_found() {
    for text in [
        "use slog::info;",
        "let t = Instant::now();",
        "std::fs::read(p)",
        "libc::kill()",
    ] {
        let found = impure_core(&[Source::new("src/core/ring.rs", text)]);
        assert!(!found.is_empty(), "{text}");
    }
    none(impure_core(&[Source::new(
        "src/core/a.rs",
        "use std::time::Duration; crate::core::b();",
    )]));
    assert!(crates().contains(&"slog".to_owned()) && crates().contains(&"actix_rt".to_owned()));
}

#[test]
fn every_ban_finds_its_text_in_code_and_only_there() {
    for ban in BANS {
        let faulty = Source::new("src/a.rs", &format!("fn f() {{ x {} }}", ban.text));
        assert!(!banned(&[faulty]).is_empty(), "{}", ban.text);
        let spoken = format!(
            "// {0}\nconst A: &str = \"{0}\"; const B: &str = r#\"{0}\"#;",
            ban.text
        );
        none(banned(&[Source::new("src/a.rs", &spoken)]));
        let tested = format!("#[cfg(test)]\nmod tests {{ fn f() {{ x {} }} }}", ban.text);
        let found = banned(&[Source::new("src/a.rs", &tested)]);
        assert_eq!(!found.is_empty(), ban.tests_too, "{}", ban.text);
        if ban.but != "-" {
            let path = if ban.but.ends_with('/') {
                "src/sys/a.rs"
            } else {
                ban.but
            };
            none(banned(&[Source::new(path, ban.text)]));
        }
    }
    let quotes = "let c = '\"'; let d = '\\''; fn g<'a>(x: &'a str) { x.unwrap() } let s = \"\";";
    assert_eq!(banned(&[Source::new("src/a.rs", quotes)]).len(), 1);
    none(banned(&[Source::new(
        "src/a.rs",
        "#![deny(unsafe_code)] fn not_unsafe() {}",
    )]));
}

#[test]
fn a_bare_or_long_file_and_a_silent_readme_are_found() {
    assert_eq!(
        without_contract(&[Source::new("src/a.rs", "fn f() {}")]).len(),
        1
    );
    let lines = |path, count| Source::new(path, &"\n".repeat(count));
    let tested = format!("{}#[cfg(test)]\nmod tests {{}}\n", "\n".repeat(LINES_MAX));
    let fine = [
        lines("src/a.rs", LINES_MAX),
        lines("tests/a.rs", TEST_LINES_MAX),
        Source::new("src/b.rs", &tested),
    ];
    none(too_long(&fine));
    let long = [
        lines("src/a.rs", LINES_MAX + 1),
        lines("tests/a.rs", TEST_LINES_MAX + 1),
    ];
    assert_eq!(too_long(&long).len(), 2);
    let names = metric_names(&[Source::new(
        "src/metrics.rs",
        "x(\"ftpulse_files_total\", 1)",
    )]);
    assert_eq!(
        untold("ftpulse_files_total_other", names.into_iter()).len(),
        1
    );
    none(untold(
        "`ftpulse_files_total`",
        ["ftpulse_files_total".to_owned()].into_iter(),
    ));
}
