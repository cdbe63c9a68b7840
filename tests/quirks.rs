//! Servers as they are: a table of ways in which servers differ, each of which a file is really
//! delivered to; what was sent and what was learned. What one session learned the next one knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, UNIX_EPOCH};

use ftpulse::lab::{Event, Fault, Kind, LabServer, Quirk, Script, Step, Subscriber, Tls};
use support::process::tied;
use support::servers::{Opts, Server, is_root};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, temp_dir, wait_until};

/// Rows at once: each is a service of its own, and mostly waits.
const AT_ONCE: usize = 4;
/// How long an idle session is kept: soon after a file the next one needs a new session.
const IDLE: &str = "50ms";

/// A lab server of a certain character and a service that delivers to it.
struct Stage {
    lab: LabServer,
    events: Subscriber,
    root: tempfile::TempDir,
    service: Ftpulse,
}

impl Stage {
    fn new(script: Script, change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::over(&[], script, change)
    }

    /// With files that stand on the server before.
    fn over(
        there: &[(&str, &[u8])],
        script: Script,
        change: impl FnOnce(Settings) -> Settings,
    ) -> Self {
        let root = temp_dir();
        fs::create_dir(root.path().join("in")).unwrap();
        for (name, bytes) in there {
            fs::write(root.path().join("in").join(name), bytes).unwrap();
        }
        let lab = LabServer::start(root.path(), script).unwrap();
        let events = lab.events();
        let settings = Settings::new()
            .quick()
            .key("timers.idle_session", IDLE)
            .key("timers.data_connect_attempts", 2)
            .route_to("main", &lab.url("in"), lab.password())
            .key("routes.main.uploaders", 1);
        let service = change(settings).start();
        Self {
            lab,
            events,
            root,
            service,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("in").join(name)
    }

    /// Delivers a file and returns the commands that were said meanwhile, by a session of its own.
    fn deliver(&mut self, name: &str, bytes: &[u8]) -> Vec<String> {
        self.events.drain();
        self.service.put("main", name, bytes);
        let delivered = self.service.logged("file delivered").len() + 1;
        wait_until(name, PATIENCE, || {
            self.service.logged("file delivered").len() >= delivered
        });
        assert!(fs::read(self.file(name)).unwrap() == bytes, "{name}");
        self.over_with()
    }

    /// All commands so far, once no session stands any more.
    fn over_with(&mut self) -> Vec<String> {
        self.lab
            .wait_counters(|c| c.sessions_open == 0, PATIENCE)
            .expect("the idle session ends");
        let events = self.events.drain().into_iter();
        events
            .filter_map(|event| match event {
                Event::Command { verb, arg, .. } if arg.is_empty() => Some(verb),
                Event::Command { verb, arg, .. } => Some(format!("{verb} {arg}")),
                _ => None,
            })
            .collect()
    }

    /// What was learned, in order.
    fn ways(&self) -> Vec<String> {
        let lines = self.service.logged("the server has a way of its own");
        let ways = lines.iter().map(|line| line["way"].as_str().unwrap());
        ways.map(str::to_owned).collect()
    }

    /// No attempt failed.
    fn smooth(&self) {
        let failed = self.service.logged("upload failed");
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// How often a command was said.
fn count(said: &[String], verb: &str) -> usize {
    let is = |line: &&String| line.split(' ').next() == Some(verb);
    said.iter().filter(is).count()
}

/// The verbs from this one on, the temp's names left out.
fn verbs_from(said: &[String], verb: &str) -> String {
    let verbs = said.iter().map(|line| line.split(' ').next().unwrap());
    let verbs: Vec<_> = verbs.skip_while(|v| *v != verb).collect();
    verbs.join(" ")
}

fn same(settings: Settings) -> Settings {
    settings
}

/// Two files by two sessions; the commands of each.
fn two(quirks: &[Quirk]) -> (Stage, Vec<String>, Vec<String>) {
    let script = Script::healthy().like(quirks.iter().cloned());
    let mut stage = Stage::new(script, same);
    let first = stage.deliver("a.bin", &content(1, 3_000));
    let second = stage.deliver("b.bin", &content(2, 300_000));
    stage.smooth();
    (stage, first, second)
}

/// Bears with these ways and learns nothing.
fn borne(quirks: &[Quirk]) {
    let (stage, ..) = two(quirks);
    assert!(stage.ways().is_empty(), "{:?}", stage.ways());
}

type Row = (&'static str, fn());

const ROWS: &[Row] = &[
    ("EPSV is refused with 500", || {
        let (stage, first, second) = two(&[Quirk::Refuses("EPSV", 500)]);
        assert_eq!((count(&first, "EPSV"), count(&first, "PASV")), (1, 1));
        assert_eq!((count(&second, "EPSV"), count(&second, "PASV")), (0, 1));
        assert_eq!(stage.ways(), ["EPSV is refused"]);
    }),
    ("EPSV is refused with 522, PASV names another host", || {
        let (stage, ..) = two(&[Quirk::Refuses("EPSV", 522), Quirk::ForeignPasv]);
        assert_eq!(stage.ways(), ["EPSV is refused"]);
    }),
    (
        "EPSV is refused, and another route is in active mode",
        || {
            let root = temp_dir();
            let script = Script::healthy().like([Quirk::Refuses("EPSV", 500)]);
            let lab = LabServer::start(root.path(), script).unwrap();
            let mut settings = Settings::new().quick();
            for (route, mode) in [("main", "passive"), ("other", "active")] {
                settings = settings
                    .route_to(route, &lab.url(route), lab.password())
                    .key(&format!("routes.{route}.mode"), mode);
            }
            let service = settings.start();
            service.put("main", "a.bin", b"a");
            service.wait_delivered("a.bin");
            service.put("other", "b.bin", b"b");
            service.wait_delivered("b.bin");
            assert_eq!(fs::read(root.path().join("other/b.bin")).unwrap(), b"b");
            let failed = service.logged("upload failed");
            assert!(failed.is_empty(), "{failed:?}");
        },
    ),
    ("EPSV's ports are shut, PASV's are open", || {
        let (stage, first, second) = two(&[Quirk::DeadEpsv]);
        assert_eq!((count(&first, "EPSV"), count(&first, "PASV")), (1, 1));
        assert_eq!((count(&second, "EPSV"), count(&second, "PASV")), (0, 1));
        let way = "the ports that EPSV names cannot be connected to";
        assert_eq!(stage.ways(), [way]);
        let retried = stage.service.logged("connecting failed");
        assert_eq!(retried.len(), 1, "the attempts, and then PASV once");
    }),
    (
        "nobody answers at EPSV's ports, somebody does at PASV's",
        || {
            let script = Script::healthy().like([Quirk::DeafEpsv]);
            let mut stage = Stage::new(script, |s| s.key("timers.data_connect", "1s"));
            stage.deliver("a.bin", &content(1, 3_000));
            let way = "the ports that EPSV names cannot be connected to";
            assert_eq!(stage.ways(), [way]);
            assert_eq!(count(&stage.deliver("b.bin", b"b"), "EPSV"), 0);
        },
    ),
    ("no data port can be had by either for a while", || {
        let shut = Fault::new(Kind::DataRefused).first(2);
        let mut stage = Stage::new(Script::from(shut), same);
        stage.deliver("a.bin", b"x");
        assert_eq!(stage.service.logged("upload failed").len(), 2);
        assert!(stage.ways().is_empty(), "{:?}", stage.ways());
    }),
    ("no SIZE", || {
        let (stage, first, second) = two(&[Quirk::Refuses("SIZE", 502)]);
        assert_eq!((count(&first, "SIZE"), count(&second, "SIZE")), (1, 0));
        assert_eq!(stage.ways(), ["no SIZE"]);
    }),
    (
        "no SIZE, no MDTM, no MLSD, no REST, no FEAT, no OPTS",
        || {
            let refused = ["SIZE", "MDTM", "MLSD", "REST", "FEAT", "OPTS"];
            let (stage, ..) = two(&refused.map(|verb| Quirk::Refuses(verb, 500)));
            assert_eq!(stage.ways(), ["no SIZE"]);
        },
    ),
    ("SIZE is refused with 500 for one name", || {
        let odd = Fault::new(Kind::Reply(Step::Size, 500)).matching("a.bin", 1);
        let mut stage = Stage::new(Script::from(odd), same);
        stage.deliver("a.bin", &content(1, 3_000));
        let second = stage.deliver("b.bin", &content(2, 3_000));
        assert_eq!(count(&second, "SIZE"), 1, "{second:?}");
        assert!(stage.ways().is_empty(), "{:?}", stage.ways());
        stage.smooth();
    }),
    ("the time of one file cannot be set for now", || {
        let busy = Fault::new(Kind::Reply(Step::Mfmt, 450)).matching("a.bin", 1);
        for_now(busy);
    }),
    ("FEAT is refused for now", || {
        for_now(Fault::new(Kind::Reply(Step::Feat, 550)).first(1));
    }),
    (
        "over TLS only the 226 tells that an upload is whole",
        || {
            let root = temp_dir();
            let script = Script::healthy().over(Tls::explicit());
            let lab = LabServer::start(root.path(), script.like([Quirk::KeepsData])).unwrap();
            let settings = Settings::new()
                .quick()
                .route_to("main", &lab.url("in"), lab.password());
            let ca = settings.spool("main").with_file_name("ca.pem");
            fs::write(&ca, lab.ca().unwrap()).unwrap();
            let service = settings.key("routes.main.ca_file", ca.display()).start();
            for name in ["a.bin", "b.bin", "c.bin"] {
                service.put("main", name, &content(1, 300_000));
                service.wait_delivered(name);
            }
            let failed = service.logged("upload failed");
            assert!(failed.is_empty(), "{failed:?}");
        },
    ),
    ("SIZE is refused in ASCII", || {
        borne(&[Quirk::SizeNeedsBinary])
    }),
    ("no REST", || {
        let script = Script::of([
            Fault::new(Kind::ControlDrop { after: 3 << 20 }).matching("a.bin", 1),
            Fault::new(Kind::ControlDrop { after: 3 << 20 }).matching("b.bin", 1),
        ]);
        let script = script.like([Quirk::Refuses("REST", 502)]);
        let small = |s: Settings| {
            s.key("routes.main.resume_over", "1MiB")
                .key("quarantine.hold", "1s")
        };
        let mut stage = Stage::new(script, small);
        let first = stage.deliver("a.bin", &content(1, 4 << 20));
        assert_eq!(count(&first, "REST"), 1, "{first:?}");
        assert_eq!(stage.ways(), ["no REST"]);
        let second = stage.deliver("b.bin", &content(2, 4 << 20));
        assert_eq!(count(&second, "REST"), 0, "{second:?}");
        assert_eq!(count(&second, "STOR"), 2, "{second:?}");
    }),
    ("a rename over a file is refused with 550", || replaced(550)),
    ("a rename over a file is refused with 553", || replaced(553)),
    ("a rename over a file is refused, and so is DELE", || {
        let script = Script::healthy().like([Quirk::NoOverwrite(553), Quirk::Refuses("DELE", 550)]);
        let old = content(1, 900);
        let mut stage = Stage::over(&[("a.bin", &old)], script, same);
        let new = content(2, 1_000);
        stage.service.put("main", "a.bin", &new);
        let line = stage
            .service
            .wait_log("upload failed", |l| l["file"] == "a.bin");
        assert!(line["error"].as_str().unwrap().contains("RNTO"), "{line}");
        assert!(
            fs::read(stage.file("a.bin")).unwrap() == old,
            "the old one stands"
        );
        let others = fs::read_dir(stage.file("")).unwrap().flatten();
        assert!(
            others
                .map(|e| fs::read(e.path()).unwrap())
                .any(|b| b == new),
            "and the new one under its temp name"
        );
        fs::remove_file(stage.file("a.bin")).unwrap();
        stage.service.wait_delivered("a.bin");
        assert!(fs::read(stage.file("a.bin")).unwrap() == new);
        assert!(stage.ways().is_empty() && count(&stage.over_with(), "DELE") > 0);
    }),
    ("a rename is refused for another reason", || {
        let refused = Fault::new(Kind::Reply(Step::Rnto, 553)).first(1);
        let mut stage = Stage::new(Script::from(refused), same);
        let said = stage.deliver("a.bin", b"x");
        assert_eq!(count(&said, "DELE"), 0, "{said:?}");
        assert!(stage.ways().is_empty());
    }),
    (
        "a rename over a file is refused, and the route skips such files",
        || {
            let script = Script::healthy().like([Quirk::NoOverwrite(553)]);
            let skip = |s: Settings| s.key("routes.main.on_conflict", "skip");
            let mut stage = Stage::over(&[("a.bin", b"old")], script, skip);
            stage.service.put("main", "a.bin", b"new");
            stage.service.wait_log("file skipped", |_| true);
            assert_eq!(fs::read(stage.file("a.bin")).unwrap(), b"old");
            assert_eq!(count(&stage.over_with(), "DELE"), 0);
        },
    ),
    ("250 in place of 226", || borne(&[Quirk::Says(226, 250)])),
    ("200 in place of 250", || borne(&[Quirk::Says(250, 200)])),
    ("250 in place of 257, and a folder to be made", || {
        let script = Script::healthy().like([Quirk::Says(257, 250)]);
        let mut stage = Stage::new(script, same);
        stage.deliver("x/y/a.bin", b"x");
        stage.smooth();
    }),
    (
        "200 in place of 257 and 250, and a folder to be made",
        || {
            let script = Script::healthy().like([Quirk::Says(257, 200), Quirk::Says(250, 200)]);
            let mut stage = Stage::new(script, same);
            stage.deliver("x/ a.bin", b"x");
            stage.smooth();
        },
    ),
    ("replies of several lines with other codes inside", || {
        borne(&[Quirk::OddLines])
    }),
    ("replies end with a bare LF", || borne(&[Quirk::BareLf])),
    ("replies are codes without a text", || {
        borne(&[Quirk::BareCodes])
    }),
    ("the same with a bare LF", || {
        borne(&[Quirk::BareCodes, Quirk::BareLf])
    }),
    ("a long greeting in Latin-1", || {
        borne(&[Quirk::LongGreeting, Quirk::Latin1Greeting])
    }),
    ("every reply is Latin-1, EPSV's too", || {
        let script = Script::from(Fault::new(Kind::Reply(Step::Stor, 550)).first(2));
        let mut stage = Stage::new(script.like([Quirk::Latin1]), same);
        stage.deliver("a.bin", b"x");
        let text = stage.service.log_text();
        assert!(
            text.contains("Permission denied") && !text.contains('\u{e9}'),
            "{text}"
        );
    }),
    ("every reply is Latin-1, PASV's too", || {
        two(&[Quirk::Latin1, Quirk::Refuses("EPSV", 500)]);
    }),
    ("the greeting begins with a 120", || {
        borne(&[Quirk::NotReady])
    }),
    ("230 comes after USER", || {
        let (_stage, first, _) = two(&[Quirk::NoPassword]);
        assert_eq!(count(&first, "PASS"), 0);
    }),
    ("232 comes after USER", || {
        let (_stage, first, _) = two(&[Quirk::NoPassword, Quirk::Says(230, 232)]);
        assert_eq!(count(&first, "PASS"), 0);
    }),
    ("202 comes after PASS", || borne(&[Quirk::Says(230, 202)])),
    ("an account is asked for", || {
        let script = Script::healthy().like([Quirk::Says(331, 332)]);
        let mut stage = Stage::new(script, same);
        let source = stage.service.put("main", "a.bin", b"x");
        let line = stage
            .service
            .wait_log("the destination gives no session", |_| true);
        let error = line["error"].as_str().unwrap();
        assert!(error.contains("wants an account"), "{line}");
        assert!(
            line["next"].as_str().unwrap().contains("by one session"),
            "{line}"
        );
        assert!(source.exists());
        assert_eq!(count(&stage.over_with(), "PASS"), 0);
    }),
    ("the 226 comes before the file does", || {
        borne(&[Quirk::EarlyFinal])
    }),
    ("names in UTF-8, which the server wants to be told", || {
        let mut stage = Stage::new(Script::healthy(), same);
        let plain = stage.deliver("a.bin", b"x");
        assert_eq!(
            count(&plain, "OPTS") + count(&plain, "FEAT"),
            0,
            "{plain:?}"
        );
        let first = stage.deliver("Zürich \u{1f600}.txt", b"y");
        assert_eq!(
            (count(&first, "FEAT"), count(&first, "OPTS")),
            (1, 1),
            "{first:?}"
        );
        assert!(first.contains(&"OPTS UTF8 ON".to_owned()));
        let second = stage.deliver("Å/ø.txt", b"z");
        assert_eq!(
            (count(&second, "FEAT"), count(&second, "OPTS")),
            (0, 1),
            "{second:?}"
        );
        stage.smooth();
    }),
    ("names in UTF-8, and OPTS is refused", || {
        let refused = Fault::new(Kind::Reply(Step::Opts, 501)).always();
        let mut stage = Stage::new(Script::from(refused), same);
        stage.deliver("ü.txt", b"y");
        stage.smooth();
    }),
    ("names in UTF-8, and no FEAT", || {
        let script = Script::healthy().like([Quirk::Refuses("FEAT", 502)]);
        let mut stage = Stage::new(script, same);
        let said = stage.deliver("ü.txt", b"y");
        assert_eq!((count(&said, "FEAT"), count(&said, "OPTS")), (1, 0));
        assert_eq!(count(&stage.deliver("ö.txt", b"y"), "FEAT"), 0);
    }),
    ("the server is on IPv6 only", || {
        let mut stage = Stage::new(Script::healthy().on_ipv6(), same);
        stage.deliver("a.bin", &content(1, 100_000));
        stage.smooth();
    }),
    (
        "IPv6, and no data port can be had at first: PASV is not tried",
        || {
            let shut = Fault::new(Kind::DataRefused).first(1);
            let mut stage = Stage::new(Script::from(shut).on_ipv6(), same);
            let said = stage.deliver("a.bin", b"x");
            assert_eq!(count(&said, "PASV"), 0, "{said:?}");
        },
    ),
    ("names must not begin with a dot", || {
        let script = Script::healthy().like([Quirk::NoDotFiles]);
        let plain = |s: Settings| s.key("routes.main.temp_pattern", "{name}.{token}.tmp");
        let mut stage = Stage::new(script, plain);
        stage.deliver("a.bin", b"x");
        stage.smooth();
    }),
    ("active mode, and the server connects after its 150", || {
        let script = Script::healthy().like([Quirk::ConnectsLate]);
        let mut stage = Stage::new(script, |s| s.key("routes.main.mode", "active"));
        stage.deliver("a.bin", &content(1, 100_000));
        stage.smooth();
    }),
    ("a session ends after each file", || {
        let script = Script::healthy().like([Quirk::OneFile]);
        let trusting = |s: Settings| {
            s.key("routes.main.publish", "direct")
                .key("routes.main.verify", "none")
        };
        let mut stage = Stage::new(script, trusting);
        for n in 0..5 {
            stage.deliver(&format!("{n}.bin"), &content(n, 10_000));
        }
        stage.smooth();
    }),
    ("the time of a file is kept by MFMT", || {
        let (said, stage) = timed(Script::healthy());
        assert_eq!(count(&said, "MFMT"), 1);
        assert!(
            verbs_from(&said, "MFMT").starts_with("MFMT RNFR RNTO"),
            "{said:?}"
        );
        assert!(stage.ways().is_empty());
        assert_eq!(mtime(&stage.file("a.bin")), OLD);
    }),
    ("the time of a file cannot be kept", || {
        let (said, mut stage) = timed(Script::healthy().like([Quirk::Refuses("MFMT", 500)]));
        assert_eq!((count(&said, "MFMT"), count(&said, "MDTM")), (0, 1));
        assert_eq!(stage.ways(), ["the time of a file cannot be set"]);
        let second = stage.deliver("b.bin", b"y");
        assert_eq!(count(&second, "MDTM"), 0, "{second:?}");
        stage.smooth();
    }),
];

/// 2019-05-06 07:08:09 UTC.
const OLD: u64 = 1_557_126_489;

fn mtime(path: &std::path::Path) -> u64 {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Puts a file with an old time.
fn put_old(service: &Ftpulse, name: &str) {
    let staged = service.put("main", &format!(".{name}"), b"old");
    let file = fs::File::options().write(true).open(&staged).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(OLD))
        .unwrap();
    fs::rename(&staged, staged.with_file_name(name)).unwrap();
}

fn timed(script: Script) -> (Vec<String>, Stage) {
    let mut stage = Stage::new(script, |s| s.key("routes.main.keep_time", true));
    put_old(&stage.service, "a.bin");
    stage.service.wait_delivered("a.bin");
    stage.smooth();
    (stage.over_with(), stage)
}

/// The first file bears the time of its upload, the second one its own.
fn for_now(fault: Fault) {
    let stage = Stage::new(Script::from(fault), |s| {
        s.key("routes.main.keep_time", true)
    });
    for name in ["a.bin", "b.bin"] {
        put_old(&stage.service, name);
        stage.service.wait_delivered(name);
    }
    assert_ne!(mtime(&stage.file("a.bin")), OLD);
    assert_eq!(mtime(&stage.file("b.bin")), OLD);
    assert!(stage.ways().is_empty(), "{:?}", stage.ways());
    stage.smooth();
}

/// The old file is deleted once the new one is whole; known, it costs no refused rename.
fn replaced(code: u16) {
    let script = Script::healthy().like([Quirk::NoOverwrite(code)]);
    let mut stage = Stage::over(&[("a.bin", b"old"), ("b.bin", b"older")], script, same);
    let first = stage.deliver("a.bin", &content(1, 200_000));
    // After the SIZE that verifies; the temp and the final name are looked for.
    let verbs = verbs_from(&first, "SIZE");
    assert!(
        verbs.starts_with("SIZE RNFR RNTO SIZE SIZE DELE RNFR RNTO"),
        "{verbs}"
    );
    assert_eq!(stage.ways(), ["a rename over a file is refused"]);
    let second = stage.deliver("b.bin", &content(2, 200_000));
    let verbs = verbs_from(&second, "SIZE");
    assert!(verbs.starts_with("SIZE SIZE DELE RNFR RNTO"), "{verbs}");
    // Where nothing is in the way nothing is deleted.
    assert_eq!(count(&stage.deliver("c.bin", b"c"), "DELE"), 0);
    stage.smooth();
    assert_eq!(stage.ways().len(), 1);
}

#[test]
fn a_file_comes_through_whatever_the_server_is_like() {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, play)) = ROWS.get(next.fetch_add(1, SeqCst)) {
                    let fine = std::panic::catch_unwind(play).is_ok();
                    println!("{} {name}", if fine { "ok    " } else { "FAILED" });
                    if !fine {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    println!("{} servers", ROWS.len());
}

/// Wherever the replacement of a file meets a lost reply, a lost connection or a 421, one of the
/// two files stands whole under its name or under the temp's, and the new one is published once.
#[test]
fn a_replacement_that_is_broken_off_anywhere_loses_neither_file() {
    // RNFR names the temp, the others the final name.
    let steps = [
        (Step::Size, "/in/b"),
        (Step::Dele, "/in/b"),
        (Step::Rnfr, ".part"),
        (Step::Rnto, "/in/b"),
    ];
    let kinds = |(step, path)| {
        let kinds = [
            Kind::NoReply(step),
            Kind::HangUp(step),
            Kind::Reply(step, 421),
        ];
        kinds.map(|kind| Fault::new(kind).matching(path, 1))
    };
    let mut faults: Vec<_> = steps.into_iter().flat_map(kinds).collect();
    faults.push(Fault::new(Kind::RntoDoneNoReply).matching("/in/b", 1));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, SeqCst)) {
                    broken_off(fault);
                }
            });
        }
    });
}

fn broken_off(fault: &Fault) {
    let name = fault.kind.name();
    let script = Script::healthy().like([Quirk::NoOverwrite(553)]);
    let hold = |s: Settings| s.key("quarantine.hold", "2s").key("timers.reply", "1s");
    let old = content(1, 200_000);
    let mut stage = Stage::over(&[("a", b"o"), ("b", &old)], script, hold);
    stage.deliver("a", b"n");
    assert_eq!(stage.ways().len(), 1);
    stage.lab.add_fault(fault.clone());
    let new = content(2, 300_000);
    let folder = stage.file("");
    let whole = || {
        let files: Vec<_> = fs::read_dir(&folder).unwrap().flatten().collect();
        files
            .iter()
            .filter_map(|e| fs::read(e.path()).ok())
            .any(|b| b == old || b == new)
    };
    stage.service.put("main", "b", &new);
    wait_until("it is delivered", PATIENCE, || {
        // Between reading the folder and its files a name may have changed.
        assert!(
            whole() || whole() || whole(),
            "neither stands after {}",
            name
        );
        stage.service.logged("file delivered").len() == 2
    });
    stage.service.wait_spool_empty("main", PATIENCE);
    assert!(fs::read(stage.file("b")).unwrap() == new, "{}", name);
    let events = stage.events.drain();
    let published = |e: &&Event| matches!(e, Event::Renamed { to, .. } if to == "/in/b");
    let times = events.iter().filter(published).count();
    assert_eq!(times, 1, "{}: {events:#?}", name);
    let struck = |e: &Event| matches!(e, Event::Struck { .. });
    assert!(events.iter().any(struck), "{} struck", name);
}

/// A stopped server executes late what it has read: its DELE must not meet the new file, neither in
/// this life nor in the next one.
#[test]
fn a_delete_that_is_executed_late_takes_no_new_file_away() {
    for killed in [false, true] {
        let script = Script::from(Fault::new(Kind::NoReply(Step::Dele)).until_thaw());
        let script = script.like([Quirk::NoOverwrite(550)]);
        let reply = if killed { "30s" } else { "1s" };
        let short = |s: Settings| s.key("timers.reply", reply).key("quarantine.hold", "5s");
        let old = content(1, 5_000);
        let mut stage = Stage::over(&[("a", &old)], script, short);
        let new = content(2, 6_000);
        stage.service.put("main", "a", &new);
        if killed {
            let struck = |e: &Event| matches!(e, Event::Struck { .. });
            stage.events.wait_for(struck, PATIENCE).unwrap();
            stage.service = stage.service.kill_and_restart();
        }
        let waits = "a DELE of the final name was not answered";
        stage.service.wait_log(waits, |_| true);
        assert!(
            fs::read(stage.file("a")).unwrap() == old,
            "the old one stands"
        );
        stage.lab.thaw();
        stage.service.wait_delivered("a");
        let deleted = |e: &&Event| matches!(e, Event::Deleted { path, .. } if path == "/in/a");
        let events = stage.events.drain();
        assert_eq!(events.iter().filter(deleted).count(), 1, "{events:#?}");
        assert!(fs::read(stage.file("a")).unwrap() == new);
    }
}

/// The same where a consumer has taken the old file meanwhile: that it is gone does not tell that
/// the DELE was executed, in this life or the next.
#[test]
fn a_delete_that_is_executed_late_takes_no_new_file_away_after_a_consumer_took_the_old_one() {
    for restart in [false, true] {
        let script = Script::from(Fault::new(Kind::NoReply(Step::Dele)).until_thaw());
        let script = script.like([Quirk::NoOverwrite(550)]);
        let short = |s: Settings| s.key("timers.reply", "1s").key("quarantine.hold", "5s");
        let mut stage = Stage::over(&[("a", b"old")], script, short);
        let new = content(2, 6_000);
        stage.service.put("main", "a", &new);
        let struck = |e: &Event| matches!(e, Event::Struck { .. });
        stage.events.wait_for(struck, PATIENCE).unwrap();
        fs::remove_file(stage.file("a")).unwrap();
        if restart {
            stage.service = stage.service.kill_and_restart();
        }
        let waits = "a DELE of the final name was not answered";
        wait_until("the next attempt", PATIENCE, || {
            !stage.service.logged(waits).is_empty() || stage.file("a").exists()
        });
        stage.lab.thaw();
        stage.service.wait_delivered("a");
        let counted = stage.lab.wait_counters(|c| c.sessions_open == 0, PATIENCE);
        assert!(counted.is_ok(), "the frozen session has ended");
        assert!(
            fs::read(stage.file("a")).unwrap() == new,
            "restart: {restart}"
        );
    }
}

#[test]
fn check_shows_the_ways_of_a_server() {
    let quirks = ["EPSV", "SIZE", "REST", "MLSD"].map(|verb| Quirk::Refuses(verb, 502));
    let (odd, plain) = (temp_dir(), temp_dir());
    // FEAT names no MLSD then, so it is not tried.
    let odd_lab = LabServer::start(odd.path(), Script::healthy().like(quirks)).unwrap();
    let lab = LabServer::start(plain.path(), Script::healthy()).unwrap();
    let shown = |lab: &LabServer| {
        let vars = Settings::new().route_to("main", &lab.url(""), lab.password());
        let output = tied(env!("CARGO_BIN_EXE_ftpulse"))
            .args(["check", "--connect", "--canary"])
            .env_clear()
            .envs(vars.vars())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        text
    };
    let text = shown(&odd_lab);
    for way in ["EPSV is refused", "no SIZE", "no REST"] {
        assert!(text.contains(way), "{text}");
    }
    assert!(shown(&lab).contains("no quirk was found"));
}

#[test]
fn real_servers_are_served_over_ipv6() {
    for server in [
        Server::vsftpd(Opts::default().ipv6()),
        Server::proftpd(Opts::default().ipv6()),
        Server::pyftpdlib(Opts::default().ipv6()),
    ] {
        let service = Settings::new().quick().route("main", &server, "in").start();
        let bytes = content(3, 700_000);
        service.put("main", "a.bin", &bytes);
        service.wait_delivered("a.bin");
        assert!(
            fs::read(server.path("in/a.bin")).unwrap() == bytes,
            "{}",
            server.name
        );
        assert!(server.addr.is_ipv6() && service.logged("upload failed").is_empty());
    }
}

/// vsftpd takes MDTM with two arguments and names no MFMT, the others do.
#[test]
fn real_servers_keep_the_time_of_a_file() {
    for server in Server::all(&Opts::default()) {
        let service = Settings::new()
            .quick()
            .route("main", &server, "in")
            .key("routes.main.keep_time", true)
            .start();
        put_old(&service, "a.bin");
        service.wait_delivered("a.bin");
        assert_eq!(mtime(&server.path("in/a.bin")), OLD, "{}", server.name);
        assert!(service.logged("the server has a way of its own").is_empty());
    }
}

/// A name with an address of each family: whichever nobody answers at, the other one is tried
/// within the same attempt.
#[test]
fn a_name_of_both_families_is_tried_in_both() {
    if !is_root() {
        println!("not root: no hosts file of its own");
        return;
    }
    for ipv6 in [false, true] {
        let dir = temp_dir();
        let hosts = dir.path().join("hosts");
        fs::write(&hosts, "::1 both.test\n127.0.0.1 both.test\n").unwrap();
        let script = Script {
            ipv6,
            ..Script::healthy()
        };
        let lab = LabServer::start(dir.path().join("root"), script).unwrap();
        let url = format!("ftp://lab@both.test:{}/in", lab.addr().port());
        let mut command = tied("unshare");
        let script = format!(
            "mount --bind {} /etc/hosts && exec {} \"$@\"",
            hosts.display(),
            env!("CARGO_BIN_EXE_ftpulse")
        );
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        let mut service = Settings::new()
            .quick()
            .key("timers.control_connect_attempts", 1)
            .route_to("main", &url, lab.password())
            .launch_as(command);
        service.wait_listening();
        service.put("main", "a.bin", b"x");
        service.wait_delivered("a.bin");
        assert!(
            service
                .logged("the destination gives no session")
                .is_empty(),
            "ipv6: {ipv6}"
        );
        assert_eq!(fs::read(dir.path().join("root/in/a.bin")).unwrap(), b"x");
    }
}
