//! The watchdog against real programs, requirement by requirement (S4, issue of ring 2): how each
//! way to die, freeze, wedge or misbehave is found, with the time from the event to the next life;
//! who is believed; how a stop, an unkillable program and the guard's own death go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

#[path = "support/guarded.rs"]
mod guarded;
mod support;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ftpulse::clock;
use guarded::Guarded;
use rustix::process::Signal;
use support::process::send;
use support::servers::is_root;
use support::service::Settings;
use support::{PATIENCE, temp_dir, wait_for, wait_until};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn same(settings: Settings) -> Settings {
    settings
}

/// Half a second a pulse, a second a software beat: found after 1.75 s and 3.5 s.
fn two_beats(settings: Settings) -> Settings {
    settings
        .key("watchdog.pulse_interval", "500ms")
        .key("watchdog.software_interval", "1s")
}

/// State letter of a process; none if it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[test]
fn exit_code_0_ends_the_watch() {
    let mut it = Guarded::start("beat(1)\nsys.exit(0)", same);
    assert_eq!(it.guard.wait_exit(PATIENCE).code(), Some(0));
    assert_eq!(it.starts(), 1);
    assert!(it.guard.logged("watchdog restart").is_empty());
    println!("S4 | exit 0 | the watch ends with 0");
}

#[test]
fn another_exit_code_is_a_restart_within_milliseconds() {
    let program = "if LIFE > 1: forever()\nbeat(2.5)\nstamp('event')\nos._exit(3)";
    let it = Guarded::start(program, same);
    let restart = it.restart("exit 3");
    assert_eq!(restart.reason, "exit");
    assert_eq!(restart.program, "exit code 3");
    assert!(!restart.paused, "it had lived for a while");
    assert!(restart.after < secs(2), "{:?}", restart.after);
}

#[test]
fn a_deadly_signal_is_a_restart_within_milliseconds() {
    let program = "if LIFE > 1: forever()\nbeat(2.5)\nstamp('event')\n\
        os.kill(os.getpid(), signal.SIGSEGV)";
    let it = Guarded::start(program, same);
    let restart = it.restart("killed by SIGSEGV");
    assert_eq!(restart.reason, "exit");
    assert_eq!(restart.program, "signal 11");
    assert!(restart.after < secs(2), "{:?}", restart.after);
}

#[test]
fn a_frozen_program_is_found_when_the_sixth_beat_is_missing() {
    let program = "if LIFE > 1: forever()\nbeat(2)\nstamp('event')\n\
        os.kill(os.getpid(), signal.SIGSTOP)";
    let it = Guarded::start(program, same);
    let restart = it.restart("SIGSTOP, one beat");
    assert_eq!(restart.reason, "beats");
    assert_eq!(restart.program, "signal 9");
    // Six intervals of 500 ms from the last beat, which was up to 50 ms before.
    let found = restart.after;
    assert!(found >= Duration::from_millis(2900), "too early: {found:?}");
    assert!(found < secs(6), "{found:?}");
}

#[test]
fn a_frozen_program_of_two_beats_has_no_pulse() {
    let program = "if LIFE > 1: beat(1e9, 'X_FTPULSE_PULSE=1', 'READY=1', 'WATCHDOG=1')\n\
        beat(2, 'X_FTPULSE_PULSE=1', 'READY=1', 'WATCHDOG=1')\nstamp('event')\n\
        os.kill(os.getpid(), signal.SIGSTOP)";
    let it = Guarded::start(program, two_beats);
    let restart = it.restart("SIGSTOP, two beats");
    assert_eq!(restart.reason, "no_pulse");
    assert!(restart.after >= Duration::from_millis(1650) && restart.after < secs(5));
}

#[test]
fn a_wedged_event_loop_whose_pulse_goes_on_has_no_software_beat() {
    let program = "def pulse():\n    beat(1e9, 'X_FTPULSE_PULSE=1')\n\
        threading.Thread(target=pulse, daemon=True).start()\n\
        time.sleep(0.3)\nnotify('READY=1', 'X_FTPULSE_PULSE=1')\n\
        if LIFE > 1: forever()\nbeat(2)\nstamp('event')\ntime.sleep(1e6)";
    let it = Guarded::start(program, two_beats);
    let restart = it.restart("event loop wedged, pulse goes on");
    assert_eq!(restart.reason, "no_software_beat");
    assert!(restart.after >= Duration::from_millis(3400) && restart.after < secs(8));
}

#[test]
fn all_cores_busy_for_long_are_no_fault_while_the_beats_go_on() {
    let soak = std::env::var_os("FTPULSE_SOAK").is_some();
    let busy = if soak { 60 } else { 6 };
    let program = format!(
        "notify('READY=1')\nburn = [sys.executable, '-I', '-S', '-c', 'while True: pass']\n\
         all = [subprocess.Popen(burn) for _ in range(os.cpu_count())]\n\
         stamp('busy')\nbeat({busy})\nstamp('done')\n[p.kill() for p in all]\nsys.exit(0)"
    );
    let mut it = Guarded::start(&program, same);
    let bound = secs(busy) + PATIENCE;
    assert_eq!(it.guard.wait_exit(bound).code(), Some(0));
    assert_eq!(it.starts(), 1);
    let took = it.wait_event("done", 1).at - it.wait_event("busy", 1).at;
    println!("S4 | {took:.1} s of 100 % CPU on all cores | no restart");
}

#[test]
fn a_program_that_ignores_term_is_killed_when_its_time_is_over() {
    let program = "signal.signal(signal.SIGTERM, lambda *_: stamp('term'))\n\
        notify('READY=1')\nstamp('deaf')\nforever()";
    let mut it = Guarded::start(program, |s| s.key("shutdown.grace", "1s"));
    it.wait_event("deaf", 1);
    let asked = clock::mono();
    it.guard.signal(Signal::TERM);
    assert_eq!(it.guard.wait_exit(PATIENCE).code(), Some(137));
    let took = clock::mono() - asked;
    println!("S4 | ignores TERM | killed after {took:?} (grace 1 s + 1.5 s), code 137");
    assert!(took >= Duration::from_millis(2500), "{took:?}");
    assert_eq!(it.events().iter().filter(|e| e.what == "term").count(), 1);
    assert_eq!(it.starts(), 1, "nothing is started again after a stop");
}

#[test]
fn a_second_stop_signal_makes_it_short_and_both_are_passed_on() {
    let program = "signal.signal(signal.SIGTERM, lambda *_: stamp('term'))\n\
        signal.signal(signal.SIGINT, lambda *_: stamp('int'))\n\
        notify('READY=1')\nstamp('deaf')\nforever()";
    let mut it = Guarded::start(program, |s| s.key("shutdown.grace", "60s"));
    it.wait_event("deaf", 1);
    it.guard.signal(Signal::TERM);
    it.wait_event("term", 1);
    // One that came within 200 ms would be the same signal, sent twice.
    let first = clock::mono();
    wait_until("another moment", PATIENCE, || {
        clock::mono() - first > Duration::from_millis(300)
    });
    it.guard.signal(Signal::INT);
    it.wait_event("int", 1);
    assert_eq!(it.guard.wait_exit(secs(10)).code(), Some(137));
}

#[test]
fn a_program_that_dies_at_once_is_throttled_and_each_pause_is_announced() {
    let it = Guarded::start("sys.exit(5)", same);
    let first = it.wait_event("start", 1);
    let sixth = it.wait_event("start", 6);
    let took = sixth.at - first.at;
    println!("S4 | dies at once | 6 starts in {took:.2} s (pauses 0.1 0.2 0.4 0.8 1.6 s)");
    assert!(took >= 3.1, "{took}");
    let pauses = it.guard.logged("watchdog pause");
    assert!(pauses.len() >= 5);
    assert_eq!(
        (&pauses[0]["pause"], &pauses[4]["pause"]),
        (&"100ms".into(), &"1600ms".into())
    );
    assert_eq!(pauses[0]["reason"], "exit");
}

#[test]
fn a_wrong_configuration_ends_with_2() {
    let mut it = Guarded::start("sys.exit(2)", same);
    assert_eq!(it.guard.wait_exit(PATIENCE).code(), Some(2));
    assert_eq!(it.starts(), 1);
    // Once it was ready a 2 is like any other code.
    let it = Guarded::start("notify('READY=1')\nstamp('event')\nsys.exit(2)", same);
    assert_eq!(it.restart("exit 2 after READY").reason, "exit");
    // A wrong command, and a configuration of the service or of the watchdog that is wrong.
    for args in [
        &["watchdog", "--", "/no/such/program"][..],
        &["run", "--watchdog"],
        &["watchdog"],
    ] {
        let mut guard = Settings::new().command(args).launch();
        assert_eq!(guard.wait_exit(PATIENCE).code(), Some(2), "{args:?}");
        let said = guard.log_text();
        let expected = if args.len() == 3 {
            "No such file"
        } else {
            "no route at all"
        };
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    println!("S4 | wrong configuration | the watch ends with 2");
}

#[test]
fn unreadable_beats_are_missed_ones() {
    let program = "if LIFE > 1: forever()\nbeat(1)\nstamp('event')\n\
        for n in range(60):\n    SOCKET.sendto(b'\\xff\\x00beat', ADDRESS)\n    time.sleep(0.1)\n";
    let it = Guarded::start(program, same);
    let restart = it.restart("garbage for beats");
    assert_eq!(restart.reason, "garbage");
    assert!(
        restart.after < secs(4),
        "the sixth in a row: {:?}",
        restart.after
    );
    let told = it.guard.wait_log("unreadable messages", |_| true);
    assert_eq!(told["error"], "not UTF-8");
}

#[test]
fn strangers_are_ignored_and_counted() {
    let program = "stamp('socket ' + os.environ['NOTIFY_SOCKET'][1:])\n\
        if LIFE > 1: forever()\nbeat(1)\nstamp('event')\ntime.sleep(1e6)";
    let it = Guarded::start(program, same);
    let name = it.wait_event("socket", 1).what.split_off("socket ".len());
    it.wait_event("event", 1);
    let to = SocketAddr::from_abstract_name(name).unwrap();
    let stranger = UnixDatagram::unbound().unwrap();
    let own = std::process::id();
    // Neither their beats nor their claims count.
    wait_until("the silent program is found", PATIENCE, || {
        for text in [
            "WATCHDOG=1",
            "READY=1",
            &format!("MAINPID={own}"),
            "STOPPING=1",
            "junk",
        ] {
            let _ = stranger.send_to_addr(text.as_bytes(), &to);
        }
        it.starts() == 2
    });
    let restart = it.restart("silent, a stranger beats in its place");
    assert_eq!(restart.reason, "beats");
    let told = it.guard.logged("messages of strangers");
    assert_eq!(told.len(), 1, "once a minute");
    assert_eq!(told[0]["pid"], own);
    assert_eq!(it.guard.logged("MAINPID is not believed").len(), 1);
}

#[test]
fn a_descendant_may_speak_and_become_the_main_process() {
    // The parent ends with 0 once the guard has read (BARRIER) that its child is the main process.
    let program = "
if os.fork() == 0:
    os.setsid()
    notify('MAINPID=%d' % os.getpid(), 'READY=1')
    r, w = os.pipe()
    with_it = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, w.to_bytes(4, sys.byteorder))]
    SOCKET.sendmsg([b'BARRIER=1'], with_it, 0, ADDRESS)
    os.close(w)
    os.read(r, 1)
    stamp('main')
    if LIFE > 1: forever()
    beat(3)
    stamp('event')
    os._exit(7)
while 'main' not in open(EVENTS).read(): time.sleep(0.01)
stamp('parent ends')
sys.exit(0)
";
    let it = Guarded::start(program, same);
    let restart = it.restart("MAINPID: the new main process exits with 7");
    assert_eq!(restart.program, "exit code 7");
    it.wait_event("parent ends", 1);
    assert_ne!(it.wait_event("main", 1).pid, it.wait_event("start", 1).pid);
}

#[test]
fn a_start_has_its_time_and_may_ask_for_more() {
    let quick = |s: Settings| s.key("watchdog.start_timeout", "1s");
    let program = "for n in range(8):\n    notify('EXTEND_TIMEOUT_USEC=2000000')\n    \
        time.sleep(0.4)\nnotify('READY=1')\nbeat(1)\nsys.exit(0)";
    let mut it = Guarded::start(program, quick);
    assert_eq!(it.guard.wait_exit(PATIENCE).code(), Some(0));
    assert_eq!(it.starts(), 1);
    let it = Guarded::start(
        "stamp('event')\ntime.sleep(1e6 if LIFE == 1 else 0.5)",
        quick,
    );
    let restart = it.restart("never ready");
    assert_eq!(restart.reason, "not_ready");
    assert!(restart.paused, "it never was of use");
    let told = it.guard.wait_log("program killed", |_| true);
    assert!(
        told["why"]
            .as_str()
            .unwrap()
            .contains("neither READY=1 nor WATCHDOG=1")
    );
}

#[test]
fn programs_that_only_say_ready_are_watched_where_that_is_asked_for() {
    let program = "notify('READY=1')\ntime.sleep(5)\nsys.exit(0)";
    let mut it = Guarded::start(program, |s| s.key("watchdog.beats", "if_sent"));
    assert_eq!(it.guard.wait_exit(PATIENCE).code(), Some(0));
    assert_eq!(it.starts(), 1);
    let it = Guarded::start(
        "if LIFE == 1: notify('READY=1')\nstamp('event')\nforever() if LIFE > 1 else time.sleep(9e5)",
        same,
    );
    assert_eq!(it.restart("READY, but no beat").reason, "beats");
}

#[test]
fn what_the_program_says_reaches_whoever_watches_the_watchdog() {
    let folder = temp_dir();
    let path = folder.path().join("notify");
    let above = UnixDatagram::bind(&path).unwrap();
    above.set_nonblocking(true).unwrap();
    let program = "stamp('env %s' % sorted(n for n in os.environ if 'WATCHDOG_' in n))\n\
        assert os.environ['WATCHDOG_PID'] == str(os.getpid())\n\
        assert os.environ['WATCHDOG_USEC'] == '3000000'\n\
        notify('STATUS=warming up')\nnotify('READY=1')\nbeat(1)\n\
        notify('RELOADING=1', 'MONOTONIC_USEC=1')\nbeat(0.5)\nnotify('READY=1', 'STATUS=well')\n\
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nstamp('up')\nforever()";
    let mut it = Guarded::start(program, |s| {
        s.env("NOTIFY_SOCKET", path.display())
            .env("WATCHDOG_USEC", 400_000)
    });
    let mut heard = Vec::new();
    let mut listen = || {
        let mut buffer = [0; 1000];
        while let Ok(length) = above.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        heard.clone()
    };
    wait_until("the program has said it all", PATIENCE, || {
        listen();
        it.events().iter().any(|event| event.what == "up")
    });
    wait_until("beats go up", PATIENCE, || {
        listen().iter().filter(|text| *text == "WATCHDOG=1").count() >= 5
    });
    assert_eq!(it.guard.terminate(), Some(0), "it drained");
    let heard = listen();
    let order = [
        "STATUS=warming up",
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=1",
        "READY=1\nSTATUS=well",
        "STOPPING=1",
    ];
    let told = heard.iter().filter(|text| *text != "WATCHDOG=1");
    assert_eq!(told.collect::<Vec<_>>(), order);
}

#[test]
fn what_a_life_leaves_behind_is_killed_and_orphans_are_reaped() {
    // A helper of the first life stays in its group; an orphan of a double fork ends.
    let program = "
if os.fork() == 0:
    if os.fork() == 0: os._exit(0)
    os._exit(0)
if LIFE > 1: forever()
helper = subprocess.Popen(['sleep', '1000'])
stamp('helper %d' % helper.pid)
beat(2.5)
stamp('event')
os._exit(1)
";
    let it = Guarded::start(program, same);
    it.restart("exit 1 with a left-over helper");
    let helper: u32 = it.wait_event("helper", 1).what["helper ".len()..]
        .parse()
        .unwrap();
    assert_eq!(
        state(helper),
        None,
        "killed and reaped before the next life"
    );
    let main = it.wait_event("start", 2).pid;
    wait_until("only the main process is a child", PATIENCE, || {
        let all = it.guard.process.descendants();
        let zombies = all.iter().filter(|pid| state(**pid) == Some('Z'));
        // One is the main process's own, which it has not waited for.
        all.contains(&main) && zombies.count() <= 1
    });
}

#[test]
fn the_program_is_asked_to_end_when_the_watchdog_is_killed() {
    let program = "def end(*_):\n    stamp('term')\n    sys.exit(0)\n\
        signal.signal(signal.SIGTERM, end)\nnotify('READY=1')\nstamp('up')\nforever()";
    let it = Guarded::start(program, same);
    it.wait_event("up", 1);
    let guard = it.guard.process.descendants();
    assert_eq!(guard.len(), 1);
    it.guard.signal(Signal::KILL);
    it.wait_event("term", 1);
}

#[test]
fn a_watchdog_that_was_suspended_convicts_nobody_who_beats() {
    let it = Guarded::start("notify('READY=1')\nstamp('up')\nforever()", same);
    it.wait_event("up", 1);
    let stopped = clock::mono();
    it.guard.signal(Signal::STOP);
    // Three times what convicts; the program waits until somebody reads its beats.
    wait_until("10 s have passed", PATIENCE, || {
        clock::mono() - stopped > secs(10)
    });
    it.guard.signal(Signal::CONT);
    let woken = clock::mono();
    wait_until("4 s have passed", PATIENCE, || {
        clock::mono() - woken > secs(4)
    });
    assert!(it.guard.logged("program killed").is_empty());
    assert_eq!(it.starts(), 1);
    // It still judges.
    let main = it.wait_event("start", 1).pid;
    send(main, Signal::STOP);
    it.guard
        .wait_log("program killed", |line| line["reason"] == "beats");
}

#[test]
fn signals_are_passed_on() {
    let program = "for name in ['HUP', 'USR1', 'USR2', 'WINCH', 'QUIT']:\n    \
        signal.signal(getattr(signal, 'SIG' + name), lambda n, _: stamp('got %d' % n))\n\
        notify('READY=1')\nstamp('up')\nforever()";
    let it = Guarded::start(program, same);
    it.wait_event("up", 1);
    for signal in [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::WINCH,
        Signal::QUIT,
    ] {
        it.guard.signal(signal);
        it.wait_event(&format!("got {}", signal.as_raw()), 1);
    }
}

#[test]
fn counts_are_kept_where_it_can_be_and_hold_nobody_up_where_not() {
    let program = "if LIFE > 2: forever()\nbeat(0.2)\nstamp('event')\nos._exit(3)";
    let state = temp_dir();
    let name = format!(
        "watchdog-{}.json",
        guarded::python().file_name().unwrap().to_str().unwrap()
    );
    fs::write(state.path().join(&name), "what is this").unwrap();
    let it = Guarded::start(program, |s| s.key("state.dir", state.path().display()));
    it.wait_event("start", 3);
    it.guard.wait_log("restart counts cannot be read", |_| true);
    let text = fs::read_to_string(state.path().join(&name)).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(kept["restarts"]["exit"], 2);
    let it = Guarded::start(program, |s| s.key("state.dir", "/proc/1/none"));
    it.wait_event("start", 3);
    it.guard.wait_log("restart counts cannot be kept", |_| true);
}

/// A file system that can be frozen: whoever writes to it waits where no signal reaches.
struct Frozen {
    at: tempfile::TempDir,
}

impl Frozen {
    fn new() -> Option<Self> {
        let at = temp_dir();
        let (image, mount) = (at.path().join("image"), at.path().join("mount"));
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        let frozen = Self { at };
        let done = run("mkfs.ext4", &["-q".as_ref(), &image])
            && run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount])
            && run("fsfreeze", &["-f".as_ref(), &mount]);
        done.then_some(frozen)
    }

    fn path(&self) -> std::path::PathBuf {
        self.at.path().join("mount")
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u".as_ref(), &self.path()]);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &["-l".as_ref(), &self.path()]);
    }
}

fn run(program: &str, args: &[&Path]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(args).env("PATH", path).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_program_that_cannot_be_killed_raises_the_alarm_and_has_no_second_copy() {
    let Some(disk) = is_root().then(Frozen::new).flatten() else {
        println!("skipped: no right to mount and freeze a file system");
        return;
    };
    let program = format!(
        "if LIFE > 1: forever()\nbeat(1)\nstamp('event')\nopen('{}/file', 'w').write('x')",
        disk.path().display()
    );
    let it = Guarded::start(&program, same);
    let alarm = it.guard.wait_log("program cannot be killed", |_| true);
    assert_eq!(alarm["state"], "D");
    assert_eq!(alarm["level"], "CRITICAL");
    let second = it
        .guard
        .wait_log("program cannot be killed", |l| l["since"] != alarm["since"]);
    assert_eq!(it.starts(), 1, "never a second copy");
    println!(
        "S4 | state D | alarms {} and {} after the KILL",
        alarm["since"], second["since"]
    );
    disk.thaw();
    assert_eq!(
        it.restart("state D until the disk works again").reason,
        "beats"
    );
}

#[test]
fn a_shell_script_with_systemd_notify_is_watched() {
    let folder = temp_dir();
    let (script, lives) = (folder.path().join("script"), folder.path().join("lives"));
    let text = format!(
        "echo life >>{0}\nsystemd-notify --ready --status='at work'\n\
         n=0; while [ $n -lt 6 ] || [ $(wc -l <{0}) -gt 1 ]; do\n\
         systemd-notify WATCHDOG=1; n=$((n+1)); sleep 0.5; done\nsleep 1000\n",
        lives.display()
    );
    fs::write(&script, text).unwrap();
    let args = ["watchdog", "--", "sh", script.to_str().unwrap()];
    let mut guard = Settings::new().command(&args).launch();
    let restart = guard.wait_log("watchdog restart", |_| true);
    println!(
        "a shell script with systemd-notify | silent | {} | {}",
        restart["reason"], restart["after"]
    );
    assert_eq!(restart["reason"], "beats");
    guard.wait_log("status", |line| line["text"] == "at work");
    guard.wait_log("program ready", |line| line["life"] == 2);
    assert_eq!(guard.terminate(), Some(143), "a shell ends by the signal");
    assert!(guard.logged("messages of strangers").is_empty());
}

#[test]
fn tor_is_watched_frozen_and_started_again() {
    let root = support::recipes::cache().join("root");
    let tor = root.join("usr/bin/tor");
    assert!(
        tor.exists(),
        "{} is missing: tests/run servers fetches it",
        tor.display()
    );
    let folder = temp_dir();
    let settings = folder.path().join("torrc");
    let data = folder.path().join("data");
    fs::write(
        &settings,
        format!(
            "DataDirectory {}\nDisableNetwork 1\nSocksPort 0\n",
            data.display()
        ),
    )
    .unwrap();
    let args = [
        "watchdog",
        "--",
        tor.to_str().unwrap(),
        "-f",
        settings.to_str().unwrap(),
        "--defaults-torrc",
        "/nonexistent",
        "--ignore-missing-torrc",
    ];
    let libraries = fs::read_dir(root.join("usr/lib")).unwrap().flatten();
    let libraries = libraries
        .map(|dir| dir.path())
        .find(|dir| dir.to_string_lossy().contains("linux-gnu"));
    let mut guard = Settings::new()
        .env("LD_LIBRARY_PATH", libraries.unwrap().display())
        .command(&args)
        .launch();
    let started = guard.wait_log("program started", |_| true);
    guard.wait_log("program ready", |_| true);
    let ready = clock::mono();
    // Twice the time that convicts: it beats.
    wait_until("7 s have passed", PATIENCE, || {
        clock::mono() - ready > secs(7)
    });
    assert!(guard.logged("program killed").is_empty());
    let pid = u32::try_from(started["pid"].as_u64().unwrap()).unwrap();
    let frozen = clock::mono();
    send(pid, Signal::STOP);
    let restart = guard.wait_log("watchdog restart", |_| true);
    println!(
        "tor | SIGSTOP | {} | {:?} to the restart",
        restart["reason"],
        clock::mono() - frozen
    );
    assert_eq!(restart["reason"], "beats");
    guard.wait_log("program ready", |line| line["life"] == 2);
    assert_eq!(guard.terminate(), Some(0));
}

#[test]
fn run_under_its_own_watchdog_survives_kill_and_freeze_and_tells_it_on_metrics() {
    let settings = Settings::new()
        .route_to("main", "ftp://user@127.0.0.1:1/in", "x")
        .key("watchdog.pulse_interval", "500ms")
        .key("watchdog.software_interval", "2s")
        .command(&["run", "--watchdog"]);
    let mut service = settings.launch();
    let child = |service: &support::service::Ftpulse| {
        wait_for("the service", PATIENCE, || {
            service.process.descendants().first().copied()
        })
    };
    service.wait_log("program ready", |line| line["life"] == 1);
    let first = child(&service);
    let comm = fs::read_to_string(format!("/proc/{first}/comm")).unwrap();
    assert_eq!(comm.trim(), "ftpulse");
    send(first, Signal::KILL);
    service.wait_log("program ready", |line| line["life"] == 2);
    let second = child(&service);
    send(second, Signal::STOP);
    service.wait_log("watchdog restart", |line| line["reason"] == "no_pulse");
    service.wait_log("program ready", |line| line["life"] == 3);
    let third = child(&service);
    assert!(first != second && second != third);
    let line = service.logged("listening").pop().unwrap();
    let address = line["address"].as_str().unwrap().parse().unwrap();
    let metrics =
        support::http::Metrics::parse(support::http::get(address, "/metrics").unwrap().body);
    for (reason, count) in [
        ("exit", 1.0),
        ("no_pulse", 1.0),
        ("no_software_beat", 0.0),
        ("beats", 0.0),
        ("not_ready", 0.0),
        ("garbage", 0.0),
    ] {
        let told = metrics.get("ftpulse_watchdog_restarts_total", &[("reason", reason)]);
        assert_eq!(told, Some(count), "{reason}");
    }
    println!(
        "resident memory of the watchdog (this build): {:?} KiB",
        support::rss_of(service.pid())
    );
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_service_started_again_keeps_to_the_intervals_that_its_watchdog_judges_by() {
    let folder = temp_dir();
    let file = folder.path().join("ftpulse.toml");
    let write = |pulse: &str, software: &str| {
        let text =
            format!("[watchdog]\npulse_interval = '{pulse}'\nsoftware_interval = '{software}'\n");
        fs::write(&file, text).unwrap();
    };
    write("500ms", "1s");
    let mut service = Settings::new()
        .route_to("main", "ftp://user@127.0.0.1:1/in", "x")
        .command(&["run", "--watchdog", "--config", file.to_str().unwrap()])
        .launch();
    service.wait_log("program ready", |line| line["life"] == 1);
    // Read by the next life of the service, not by the watchdog.
    write("30s", "60s");
    let children = service.process.descendants();
    send(children[0], Signal::KILL);
    service.wait_log("program ready", |line| line["life"] == 2);
    for told in service.logged("a watchdog is told") {
        assert_eq!(
            (&told["pulse_seconds"], &told["software_seconds"]),
            (&0.5.into(), &1.0.into())
        );
    }
    assert_eq!(service.logged("a watchdog is told").len(), 2);
    assert_eq!(service.terminate(), Some(0));
}

/// Ends the flood, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_flood_of_strangers_holds_neither_a_restart_nor_a_stop() {
    let program = "stamp('socket ' + os.environ['NOTIFY_SOCKET'][1:])\nbeat(1)\n\
        while LIFE == 1 and 'go' not in open(EVENTS).read(): beat(0.1)\n\
        if LIFE > 1: forever()\nstamp('event')\nos._exit(3)";
    let mut it = Guarded::start(program, same);
    let name = it.wait_event("socket", 1).what.split_off("socket ".len());
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let to = SocketAddr::from_abstract_name(&name).unwrap();
                let stranger = UnixDatagram::unbound().unwrap();
                // Refused is a guard that is gone.
                while !end.load(Relaxed) && stranger.send_to_addr(b"x", &to).is_ok() {
                    std::hint::spin_loop();
                }
            });
        }
        let _ends = Ends(&end);
        it.guard.wait_log("messages of strangers", |_| true);
        it.say("go");
        let restart = it.restart("exit 3 in a flood of strangers");
        assert_eq!(restart.reason, "exit");
        it.guard.signal(Signal::TERM);
        assert_eq!(it.guard.wait_exit(PATIENCE).code(), Some(143));
    });
}
