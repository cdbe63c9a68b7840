//! `ftpulse check` looks at this machine's folders as the service would find them, run by the same
//! user: says what is missing or may not be used, and makes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use support::recipes::UNPRIVILEGED;
use support::servers::is_root;
use support::temp_dir;

/// What it prints, run by a user for whom rights mean something; its exit code is 0.
fn check(keys: &[(&str, &Path)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
    if is_root() {
        command = Command::new("setpriv");
        let id = UNPRIVILEGED.to_string();
        command.args(["--clear-groups", "--reuid", &id, "--regid", &id, "--"]);
        command.arg(env!("CARGO_BIN_EXE_ftpulse"));
    }
    command.arg("check").env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.env("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@192.0.2.1/in");
    command.env("FTPULSE__ROUTES__MAIN__PASSWORD", "");
    for (key, path) in keys {
        command.env(format!("FTPULSE__{key}"), path);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    told
}

#[test]
fn folders_that_the_service_could_not_use_are_told_and_nothing_is_made() {
    let dir = temp_dir();
    let at = |name: &str| dir.path().join(name);
    let make = |name: &str, mode: u32| {
        fs::create_dir(at(name)).unwrap();
        if is_root() {
            chown(at(name), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
        fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    };
    make("open", 0o755);
    make("spool", 0o755);
    make("closed", 0o555);
    make("unreadable", 0o300);
    fs::write(at("file"), "").unwrap();
    let (state, spool, archive) = ("STATE__DIR", "ROUTES__MAIN__SPOOL", "ROUTES__MAIN__ARCHIVE");
    let told = |state_dir: &str, spool_dir: &str| {
        check(&[(state, &at(state_dir)), (spool, &at(spool_dir))])
    };

    // What is there and may be used, or may be made, is no warning.
    assert_eq!(told("open/state", "spool"), "");

    let cases = [
        (
            "closed/state/deep",
            "spool",
            "cannot be made: this user may not write in",
        ),
        (
            "closed",
            "spool",
            "cannot be written by this user; the service does not start",
        ),
        ("file/state", "spool", "cannot be made"),
        ("file", "spool", "is no folder"),
        (
            "open/state",
            "open/missing",
            "is missing; the service waits for it and does not make it",
        ),
        (
            "open/state",
            "unreadable",
            "cannot be read by this user; the service waits",
        ),
        (
            "open/state",
            "closed",
            "delivered sources could not be removed",
        ),
        ("open/state", "file", "is no folder"),
    ];
    for (state_dir, spool_dir, expected) in cases {
        let told = told(state_dir, spool_dir);
        let of = if spool_dir == "spool" {
            state_dir
        } else {
            spool_dir
        };
        println!("{}", told.trim_end());
        assert!(
            told.contains(expected) && told.lines().count() == 1,
            "{of}: {told}"
        );
        assert!(told.contains(&format!("{:?} ", at(of))), "{of}: {told}");
    }
    let after = Path::new("archive");
    let told = check(&[
        (state, &at("open/state")),
        (spool, &at("spool")),
        (archive, &at("closed/done")),
        ("ROUTES__MAIN__AFTER", after),
    ]);
    assert!(
        told.contains("routes.main.archive") && told.contains("stay in the spool"),
        "{told}"
    );
    // An unwritable journal in a folder that may be written.
    make("open/kept", 0o755);
    fs::write(at("open/kept/journal.db"), "").unwrap();
    fs::set_permissions(at("open/kept/journal.db"), Permissions::from_mode(0o400)).unwrap();
    let told = check(&[(state, &at("open/kept")), (spool, &at("spool"))]);
    assert!(
        told.contains("the journal") && told.contains("cannot be written"),
        "{told}"
    );

    let made: Vec<_> = fs::read_dir(at("open"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(made, ["kept"]);
}
