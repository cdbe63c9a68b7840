//! The systemd unit: clean and well rated in systemd's own eyes, its times in accord with the
//! service's, and its hardening shown to leave the service all it uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use super::deploy_common::{read, run};
use super::support::certificates::Authority;
use super::support::process::{send, tied};
use super::support::recipes::UNPRIVILEGED;
use super::support::servers::{Opts, Server, is_root};
use super::support::service::Settings;
use super::support::{PATIENCE, content, temp_dir};
use super::{PROGRAM, default_of, duration};

const UNIT: &str = "deploy/systemd/ftpulse.service";
const DROP_IN: &str = "deploy/systemd/10-route-main.conf";

/// The values of a setting of the unit, in order.
fn values(key: &str) -> Vec<String> {
    let start = format!("{key}=");
    let unit = read(UNIT);
    let found = unit.lines().filter_map(|line| line.strip_prefix(&start));
    found.map(str::to_owned).collect()
}

fn value(key: &str) -> String {
    let mut values = values(key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values.remove(0)
}

/// `systemd-analyze` on the unit with its drop-in, started from where the program is built.
fn analyze(args: &[&str]) -> String {
    let place = temp_dir();
    let unit = place.path().join("ftpulse.service");
    fs::write(&unit, read(UNIT).replace("/usr/bin/ftpulse", PROGRAM)).unwrap();
    let drop_ins = place.path().join("ftpulse.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("10-route-main.conf"), read(DROP_IN)).unwrap();
    let output = run(Command::new("systemd-analyze").args(args).arg(&unit));
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn systemd_finds_no_fault_in_the_unit_and_rates_it_ok() {
    assert_eq!(analyze(&["verify", "--man=no"]), "");
    // In tenths; the least that is reached: names are looked up, files are sent.
    let rated = analyze(&["security", "--offline=true", "--threshold=15"]);
    assert!(rated.contains("Overall exposure level"), "{rated}");
}

#[test]
fn the_unit_waits_and_restarts_as_the_service_needs_it() {
    assert_eq!(
        (value("Type"), value("NotifyAccess")),
        ("notify".into(), "main".into())
    );
    assert!(duration(&value("WatchdogSec")) >= 3 * default_of("software_interval"));
    assert!(duration(&value("TimeoutStopSec")) > default_of("grace"));
    assert_eq!(value("Restart"), "on-failure");
    assert_eq!(value("RestartPreventExitStatus"), "2");
    assert_eq!(value("StartLimitIntervalSec"), "0", "it is never given up");
    let state = format!("#dir = \"/var/lib/{}\"\n", value("StateDirectory"));
    assert!(read("config/ftpulse.toml").contains(&state));
    let users = read("deploy/systemd/ftpulse.sysusers");
    assert!(users.contains(&format!("\nu {} ", value("User"))));
    let route = read(DROP_IN);
    let (name, _) = route
        .split("LoadCredential=")
        .nth(1)
        .unwrap()
        .split_once(':')
        .unwrap();
    let variable = format!("\nEnvironment=FTPULSE__ROUTES__MAIN__PASSWORD_FILE=%d/{name}\n");
    assert!(
        route.contains(&variable),
        "the credential is the one that is read"
    );
}

/// The system calls of a group, those of the groups in it included.
fn group(name: &str) -> BTreeSet<String> {
    let output = run(Command::new("systemd-analyze").args(["syscall-filter", name]));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut calls = BTreeSet::new();
    for line in text.lines().skip(1).map(str::trim) {
        match line.starts_with('@') {
            true => calls.extend(group(line)),
            false if line.starts_with('#') || line.is_empty() => {}
            false => drop(calls.insert(line.to_owned())),
        }
    }
    calls
}

/// What the unit's SystemCallFilter lets through: systemd always lets @default.
fn allowed() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for line in values("SystemCallFilter") {
        match line.strip_prefix('~') {
            None => calls.extend(line.split(' ').flat_map(group)),
            Some(denied) => {
                for call in denied.split(' ').flat_map(group) {
                    calls.remove(&call);
                }
            }
        }
    }
    calls.extend(group("@default"));
    calls
}

/// A command for the program under strace, as root alone can make it: as a user without
/// capabilities who owns `home` and can gain none.
fn as_in_the_unit(place: &Path, home: &Path, trace: &Path) -> Command {
    let program = place.join("ftpulse");
    fs::copy(PROGRAM, &program).unwrap();
    let mut command = if is_root() {
        let owner = format!("{UNPRIVILEGED}:{UNPRIVILEGED}");
        run(Command::new("chown")
            .args(["-R", &owner])
            .args([home, place]));
        let mut setpriv = tied("setpriv");
        setpriv.arg(format!("--reuid={UNPRIVILEGED}"));
        setpriv.arg(format!("--regid={UNPRIVILEGED}"));
        setpriv.args(["--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
        setpriv.args(["--bounding-set=-all", "--pdeathsig=KILL", "strace"]);
        setpriv
    } else {
        tied("strace")
    };
    command.args(["-f", "-qq", "-o"]).arg(trace).arg(program);
    command
}

#[test]
fn the_hardening_leaves_the_service_every_system_call_it_makes() {
    let authority = Arc::new(Authority::new());
    let plain = Server::pyftpdlib(Opts::default().process_per_session());
    let secured = Server::vsftpd(Opts::default().tls(&authority));
    fs::create_dir(plain.path("out")).unwrap();
    fs::write(plain.path("out/down"), content(3, 100_000)).unwrap();
    let place = temp_dir();
    let trace = place.path().join("trace");
    let settings = Settings::new()
        .route("main", &plain, "")
        .route("secured", &secured, "")
        .route("down", &plain, "out")
        // Nobody listens there; but its name is looked up.
        .route_to("named", "ftp://nobody@localhost:1/", "x")
        .key("heartbeat.interval", "1s")
        .key("heartbeat.vouchers", "none")
        .key("routes.main.uploaders", 1)
        .key("routes.down.direction", "get")
        .key("routes.down.poll", "1s")
        .key("retry.first", "100ms")
        .key("timers.control_connect_attempts", 1)
        .key("timers.idle_session", "5m");
    let home = settings.spool("main").join("../..");
    let mut service = settings.launch_as(as_in_the_unit(place.path(), &home, &trace));
    service.wait_listening();
    for route in ["main", "secured"] {
        service.put(route, route, &content(1, 2_000_000));
        service.wait_delivered(route);
    }
    service.wait_delivered("down");
    service.put("named", "named", b"x");
    service.wait_log("the destination gives no session", |l| {
        l["route"] == "named"
    });
    // A deadlock: signals, descriptors laid over sockets, resets.
    assert!(!plain.freeze_sessions().is_empty());
    service.put("main", "wedged", &content(2, 100_000));
    service.wait_log("uploader reset", |_| true);
    service.wait_delivered("wedged");
    assert_eq!(service.get("/metrics").status, 200);
    let traced = service.process.descendants();
    let [pid] = traced[..] else {
        panic!("the service alone: {traced:?}")
    };
    send(pid, Signal::HUP);
    service.wait_log("configuration reloaded", |_| true);
    send(pid, Signal::TERM);
    assert_eq!(service.wait_exit(PATIENCE).code(), Some(0));

    let text = fs::read_to_string(&trace).unwrap();
    let calls: Vec<&str> = text
        .lines()
        .filter_map(|l| Some(l.split_once(' ')?.1.trim()))
        .collect();
    let name = |call: &str| {
        let name = call.strip_prefix("<... ").unwrap_or(call);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        name[..end.unwrap_or(name.len())].to_owned()
    };
    let used: BTreeSet<String> = calls
        .iter()
        .filter(|call| !call.starts_with("---") && !call.starts_with("+++"))
        .map(|call| name(call))
        .collect();
    for must in [
        "setpriority",
        "tgkill",
        "dup3",
        "inotify_add_watch",
        "sendto",
    ] {
        assert!(
            used.contains(must),
            "the trace is of the service at work: {used:?}"
        );
    }
    let allowed = allowed();
    assert!(!allowed.contains("ptrace") && !allowed.contains("chown"));
    let refused: Vec<&String> = used
        .iter()
        .filter(|call| !allowed.contains(*call))
        .collect();
    assert!(refused.is_empty(), "the filter refuses {refused:?}");

    let families = value("RestrictAddressFamilies");
    for call in calls
        .iter()
        .filter(|call| call.starts_with("socket(") || call.starts_with("socketpair("))
    {
        let family = call.split(['(', ',']).nth(1).unwrap();
        assert!(families.split(' ').any(|f| f == family), "{call}");
    }
    // MemoryDenyWriteExecute, RestrictNamespaces, RestrictSUIDSGID, RestrictRealtime.
    for call in &calls {
        let writes = call.contains("PROT_WRITE|PROT_EXEC");
        let later = call.starts_with("mprotect(") && call.contains("PROT_EXEC");
        assert!(!writes && !later, "{call}");
        assert!(
            !call.contains("CLONE_NEW") && !call.contains("S_ISUID") && !call.contains("S_ISGID"),
            "{call}"
        );
        assert!(!call.starts_with("sched_setscheduler("), "{call}");
    }
}
