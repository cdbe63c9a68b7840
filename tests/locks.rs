//! A source that another process holds exclusively is not taken: by `flock` or by `fcntl`, its
//! holder named where the kernel tells; tried again by the lock's own timers, then under the
//! back-off, and sent once it is free. Who has a file open for writing is known by a lease where
//! the service owns the file or may ask; where it may not, the locks are what it heeds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod spool_common;
mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{ChildStdin, Stdio};

use ftpulse::lab::{LabServer, Script};
use ftpulse::spool::locked;
use ftpulse::sys::file::{Writers, writers};
use serde_json::Value;
use spool_common::{NOBODY, as_user};
use support::process::{Running, spawn, tied};
use support::recipes::UNPRIVILEGED;
use support::servers::is_root;
use support::service::{Settings, variable};
use support::{PATIENCE, temp_dir, wait_until};

/// Opens the file, locks it exclusively, says so, and writes on each line that it is sent; at the
/// end of its input it ends, and its lock with it.
const HOLDER: &str = r#"
import fcntl, struct, sys
kind, path = sys.argv[1:]
f = open(path, "r" if kind == "flock" else "r+")
if kind == "flock":
    fcntl.flock(f, fcntl.LOCK_EX)
elif kind == "posix":
    fcntl.lockf(f, fcntl.LOCK_EX)
elif kind == "ofd":
    fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
print("held", flush=True)
for line in sys.stdin:
    f.seek(0, 2)
    f.write(line)
    f.flush()
    print("written", flush=True)
"#;

struct Holder {
    process: Running,
    input: Option<ChildStdin>,
    told: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Holder {
    fn of(kind: &str, path: &Path) -> Self {
        let mut command = tied("python3");
        command.args(["-c", HOLDER, kind]).arg(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = spawn(command).unwrap();
        let input = process.child.stdin.take();
        let told = BufReader::new(process.child.stdout.take().unwrap()).lines();
        let mut holder = Self {
            process,
            input,
            told,
        };
        holder.says("held");
        holder
    }

    fn says(&mut self, what: &str) {
        assert_eq!(self.told.next().unwrap().unwrap(), what);
    }

    fn write(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        self.says("written");
    }

    fn end(mut self) {
        drop(self.input.take());
        self.process.wait(PATIENCE);
    }
}

#[test]
fn whoever_holds_a_source_exclusively_is_named_where_the_kernel_tells() {
    let dir = temp_dir();
    let path = dir.path().join("f");
    fs::write(&path, "x").unwrap();
    let open = || File::open(&path).unwrap();
    for (kind, by, known) in [
        ("flock", "flock", true),
        ("posix", "fcntl", true),
        ("ofd", "fcntl", false),
    ] {
        let holder = Holder::of(kind, &path);
        let refused = locked::share(&open()).unwrap_err();
        println!("{kind}: the source is {refused}");
        assert_eq!(refused.by, by);
        let pid = refused.holder.as_ref().map(|holder| holder.pid);
        assert_eq!(pid, known.then(|| holder.process.pid()), "{kind}");
        if known {
            assert!(refused.to_string().contains("python3"), "{refused}");
        }
        holder.end();
        assert_eq!(locked::share(&open()), Ok(()), "{kind}: free again");
    }
    // Readers share; and a writer that asks for its lock waits for us.
    let (first, second) = (open(), open());
    assert_eq!(locked::share(&first), Ok(()));
    assert_eq!(locked::share(&second), Ok(()));
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    let ask = || {
        rustix::fs::fcntl_lock(
            &writer,
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        )
    };
    assert!(ask().is_err());
    drop((first, second));
    assert_eq!(ask(), Ok(()));
}

fn settings(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("timers.read_lock_interval", "50ms")
        .key("timers.read_lock_retries", "2")
}

fn says_locked(line: &Value, holder: &Holder) -> bool {
    let text = line["error"].as_str().unwrap_or_default();
    text.contains(&format!("locked by pid {} (", holder.process.pid())) && text.contains("python3")
}

#[test]
fn a_locked_source_is_tried_again_by_its_timers_then_under_the_back_off_and_sent_when_free() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).start();
    let staged = root.path().join("staged");
    fs::write(&staged, "locked").unwrap();
    let holder = Holder::of("flock", &staged);
    fs::rename(&staged, service.spool("main").join("file")).unwrap();
    // Twice in an attempt by the timers, and again in the next attempt after the back-off.
    service.wait_log("upload failed", |line| {
        line["file"] == "file" && line["attempt"] == 2 && says_locked(line, &holder)
    });
    let tries = service.logged("the source is locked");
    assert!(
        tries.len() >= 4 && tries.iter().all(|line| says_locked(line, &holder)),
        "{tries:?}"
    );
    assert!(!root.path().join("in/file").exists());
    // Nothing else waits for it.
    service.put("main", "other", b"x");
    service.wait_delivered("other");
    assert!(!root.path().join("in/file").exists());
    holder.end();
    service.wait_delivered("file");
    assert_eq!(fs::read(root.path().join("in/file")).unwrap(), b"locked");
    assert_eq!(
        service.metrics().sum("ftpulse_uploader_resets_total", &[]),
        0.0
    );
}

/// A writer that the service may not ask the kernel about: another user's file, without privileges.
#[test]
fn an_unprivileged_service_heeds_the_locks_of_another_users_writer() {
    if !is_root() {
        println!("left out: it takes root to be another user");
        return;
    }
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let settings = settings(&lab);
    let spool = settings.spool("main");
    let nobody = Some(UNPRIVILEGED);
    for key in ["state.dir", "routes.main.spool"] {
        chown(&settings.vars()[&variable(key)], nobody, nobody).unwrap();
    }
    let path = spool.join("file");
    fs::write(&path, "first\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mut holder = Holder::of("posix", &path);
    let id = UNPRIVILEGED.to_string();
    let mut command = tied("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--clear-groups",
            "--reuid",
            &id,
            "--regid",
            &id,
            "--",
        ])
        .arg(env!("CARGO_BIN_EXE_ftpulse"))
        .arg("run")
        .env_clear()
        .envs(settings.vars());
    let mut service = settings.launch_by(command);
    service.wait_listening();
    service.wait_log("upload failed", |line| {
        line["file"] == "file" && says_locked(line, &holder)
    });
    holder.write("second");
    assert!(!root.path().join("in/file").exists());
    holder.end();
    let there = root.path().join("in/file");
    wait_until("the whole file is there", PATIENCE, || {
        fs::read(&there).is_ok_and(|bytes| bytes == b"first\nsecond\n")
    });
    // Another user's file in a folder of ours may be removed.
    service.wait_spool_empty("main", PATIENCE);
}

/// What is known of a writer, by who asks. Printed, as the file system decides a part of it.
#[test]
fn a_writer_is_known_to_the_owner_and_to_the_privileged_and_to_nobody_else() {
    let dir = temp_dir();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for path in [&ours, &theirs] {
        fs::write(path, "x").unwrap();
    }
    if is_root() {
        chown(&ours, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let ask = |path: &Path| {
        let path = path.to_owned();
        as_user(NOBODY, move || writers(&File::open(path).unwrap()))
    };
    let _writing = [&ours, &theirs].map(|path| OpenOptions::new().append(true).open(path).unwrap());
    let (of_ours, of_theirs) = (ask(&ours), ask(&theirs));
    println!("unprivileged, of its own file: {of_ours:?}; of another user's: {of_theirs:?}");
    assert_eq!(
        of_ours,
        Writers::Some,
        "the owner is told of another user's writer"
    );
    assert_eq!(writers(&File::open(&theirs).unwrap()), Writers::Some);
    if is_root() {
        assert_eq!(of_theirs, Writers::Unknown);
    }
}
