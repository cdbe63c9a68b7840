//! The image: built from deploy/Dockerfile, run with a read-only root, without capabilities, as
//! user 65532, configured by three variables alone; it uploads, drains on a stop and exits 0.
//! Needs root, podman and runc, but no registry and no network: the base image is made of this
//! machine's own shell and libraries. FTPULSE_TEST_SKIP_CONTAINER=1 skips it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use ftpulse::clock;
use rustix::process::Signal;
use support::http::{self, Metrics};
use support::process::{descendants, send, tied};
use support::recipes::cache;
use support::servers::{Opts, Server, is_root};
use support::service::{Ftpulse, Settings};
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, temp_dir, wait_for, wait_until};

const BASE: &str = "localhost/ftpulse-test-base";
const IMAGE: &str = "localhost/ftpulse-test";
const CONTAINER: &str = "ftpulse-test";
const USER: u32 = 65532;
/// Where the image listens, seen from the host whose network it shares.
const HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 9188);
/// Set in the test's second life, see `alone`.
const INSIDE: &str = "FTPULSE_TEST_INSIDE_NETWORK";

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":" + PATH;
    let places = path
        .split(':')
        .map(|folder| Path::new(folder).join(program));
    places.into_iter().find(|file| file.exists())
}

/// Whether the test shall run; panics if it shall but cannot.
fn wanted() -> bool {
    if std::env::var_os("FTPULSE_TEST_SKIP_CONTAINER").is_some_and(|value| !value.is_empty()) {
        eprintln!("not run: FTPULSE_TEST_SKIP_CONTAINER is set");
        return false;
    }
    let mut missing = Vec::new();
    if !is_root() {
        missing.push("root");
    }
    let programs = ["podman", "runc", "ip", "unshare", "ldd"];
    missing.extend(
        programs
            .into_iter()
            .filter(|program| find(program).is_none()),
    );
    assert!(
        missing.is_empty(),
        "the container test needs {}; install it, or set FTPULSE_TEST_SKIP_CONTAINER=1",
        missing.join(", ")
    );
    true
}

/// Runs this very test once more in a network of its own: the image listens on a fixed port, and
/// the container shares the network of whoever starts it. True in that second life.
fn alone(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = tied("unshare");
    command.args([
        "--net",
        "sh",
        "-c",
        "ip link set lo up && exec \"$@\"",
        "sh",
    ]);
    command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"]);
    let path = std::env::var("PATH").unwrap_or_default() + ":" + PATH;
    command.env(INSIDE, "1").env("PATH", path);
    let status = support::process::spawn(command)
        .unwrap()
        .wait(Duration::from_secs(600));
    assert!(
        status.success(),
        "the test in a network of its own: {status}"
    );
    false
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// podman's images and containers of one run of this test, in a place of their own: the machine's
/// stay as they are. Empty at the beginning and gone at the end, so it cannot grow, whatever the
/// storage driver keeps of each build.
struct Store {
    place: PathBuf,
    /// Held as long as the store is in use: two runs at once take turns.
    _lock: File,
}

impl Store {
    fn new() -> Self {
        let lock = File::create(cache().join("podman.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let store = Self {
            place: cache().join("podman"),
            _lock: lock,
        };
        store.wipe(); // of a run that was killed
        store
    }

    /// A podman command in this store.
    fn podman(&self, mut command: Command) -> Command {
        command.arg("--root").arg(self.place.join("root"));
        command.arg("--runroot").arg(self.place.join("run"));
        command.arg("--tmpdir").arg(self.place.join("tmp"));
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(["--events-backend", "none"]);
        command
    }

    fn here(&self) -> Command {
        self.podman(Command::new("podman"))
    }

    fn wipe(&self) {
        if self.place.exists() {
            let _ = self
                .here()
                .args(["rm", "--all", "--force", "--volumes", "--time", "0"])
                .output();
            let _ = self.here().args(["rmi", "--all", "--force"]).output();
            if let Err(error) = fs::remove_dir_all(&self.place) {
                eprintln!("{} is not removed: {error}", self.place.display());
            }
        }
    }

    /// A base image of a shell, `install` and the libraries that they and the service need.
    fn import_base(&self) {
        let tree = temp_dir();
        let place = |file: &str| {
            let to = tree.path().join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            to
        };
        fs::copy(find("sh").unwrap(), place("/bin/sh")).unwrap();
        fs::copy(find("install").unwrap(), place("/usr/bin/install")).unwrap();
        fs::write(place("/etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(place("/etc/group"), "root:x:0:\n").unwrap();
        let mut ldd = Command::new("ldd");
        ldd.args([find("sh").unwrap(), find("install").unwrap()]);
        let said = text(&run(ldd.arg(env!("CARGO_BIN_EXE_ftpulse"))));
        let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
        for library in libraries.filter(|word| word.contains(".so")) {
            fs::copy(library, place(library)).unwrap();
        }
        let archive = tree.path().join("base.tar");
        run(Command::new("tar")
            .arg("-C")
            .arg(tree.path())
            .arg("--exclude=./base.tar")
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        run(self.here().arg("import").arg(&archive).arg(BASE));
    }

    /// Builds the image around the binary under test.
    fn build_image(&self) {
        let context = temp_dir();
        fs::copy(
            env!("CARGO_BIN_EXE_ftpulse"),
            context.path().join("ftpulse"),
        )
        .unwrap();
        let built = run(self
            .here()
            .args(["build", "--target", "runtime-prebuilt", "--tag", IMAGE])
            .args([
                "--build-arg",
                &format!("BASE={BASE}"),
                "--build-arg",
                "BINARY=ftpulse",
            ])
            .args(["--pull-never", "--isolation", "chroot", "--file"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/Dockerfile"))
            .arg(context.path()));
        let steps = text(&built);
        assert!(steps.contains("USER 65532"), "{steps}");
        assert!(
            !steps.contains("cargo"),
            "the builder's stage is not carried out: {steps}"
        );
    }

    /// The container's PID 1, as its host numbers it.
    fn first_process(&self) -> u32 {
        let inspect = ["inspect", "--format", "{{.State.Pid}}", CONTAINER];
        text(&run(self.here().args(inspect))).parse().unwrap()
    }

    /// `podman run` as the deployment does it, with the strictest settings.
    fn confined(&self, command: Command) -> Command {
        let mut command = self.podman(command);
        command.args([
            "run",
            "--rm",
            "--name",
            CONTAINER,
            "--read-only",
            "--user",
            "65532",
        ]);
        command.args(["--cap-drop", "all", "--security-opt", "no-new-privileges"]);
        command.args(["--network", "host"]);
        command.args([
            "--ulimit",
            "nofile=1024:20000",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        command
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// The image as a service, with one route to a server.
struct Deployed {
    service: Ftpulse,
    spool: PathBuf,
    _secrets: tempfile::TempDir,
}

impl Deployed {
    fn start(store: &Store, server: &Server) -> Self {
        let settings = Settings::new().route("main", server, "");
        let spool = settings.spool("main");
        chown(&spool, Some(USER), Some(USER)).unwrap();
        let secrets = temp_dir();
        let password = secrets.path().join("ftp");
        fs::write(&password, &server.password).unwrap();
        fs::set_permissions(&password, Permissions::from_mode(0o400)).unwrap();
        chown(&password, Some(USER), Some(USER)).unwrap();
        let mut command = store.confined(tied("podman"));
        command
            .arg("--volume")
            .arg(format!("{}:/spool", spool.display()));
        command
            .arg("--volume")
            .arg(format!("{}:/run/secrets/ftp:ro", password.display()));
        // The smallest service is three variables.
        for (variable, value) in [
            ("FTPULSE__ROUTES__MAIN__SPOOL", "/spool"),
            ("FTPULSE__ROUTES__MAIN__SERVER", &server.url("incoming")),
            ("FTPULSE__ROUTES__MAIN__PASSWORD_FILE", "/run/secrets/ftp"),
        ] {
            command.args(["--env", &format!("{variable}={value}")]);
        }
        command.arg(IMAGE);
        let mut service = settings.launch_by(command);
        service.wait_listening();
        assert_eq!(service.http().to_string(), "0.0.0.0:9188");
        Self {
            service,
            spool,
            _secrets: secrets,
        }
    }
}

fn get(path: &str) -> http::Answer {
    http::get(SocketAddr::from(HTTP), path).unwrap()
}

#[test]
fn the_image_uploads_without_privileges_and_drains_when_it_is_stopped() {
    if !wanted() || !alone("the_image_uploads_without_privileges_and_drains_when_it_is_stopped") {
        return;
    }
    let store = Store::new();
    store.import_base();
    store.build_image();
    let version = run(store
        .confined(Command::new("podman"))
        .args([IMAGE, "--version"]));
    assert_eq!(
        text(&version),
        concat!("ftpulse ", env!("CARGO_PKG_VERSION"))
    );

    // 2 MiB a second: the large file is under way for some seconds.
    let server = Server::pyftpdlib(
        Opts::default()
            .line("from pyftpdlib.handlers import ThrottledDTPHandler")
            .line("class slow(ThrottledDTPHandler): read_limit = 2 * 1024 * 1024")
            .line("handler.dtp_handler = slow"),
    );
    let watcher = Watcher::start(&server.root, is_final_name);
    let Deployed {
        mut service, spool, ..
    } = Deployed::start(&store, &server);

    // What the kernel says of its rights.
    let pid = store.first_process();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |key: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap()
            .trim()
    };
    assert_eq!(
        field("Uid:").split_whitespace().collect::<Vec<_>>(),
        ["65532"; 4]
    );
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("CapBnd:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");

    let small = content(1, 10_000);
    watcher.allow("incoming/small", &small);
    service.put("main", "small", &small);
    service.wait_delivered("small");
    assert_eq!(get("/healthz").status, 200);
    assert_eq!(get("/readyz").status, 200);
    assert_ne!(
        get("/api/status").status,
        200,
        "off loopback, without a token"
    );
    let delivered = [("route", "main"), ("outcome", "delivered")];
    let metrics = Metrics::parse(get("/metrics").body);
    assert!(metrics.sum("ftpulse_files_total", &delivered) >= 1.0);

    // Stopped in the middle of a file: it still arrives, whole.
    let large = content(2, 8 * 1024 * 1024);
    watcher.allow("incoming/large", &large);
    service.put("main", "large", &large);
    wait_until("the large file is under way", PATIENCE, || {
        let files = fs::read_dir(server.path("incoming"))
            .into_iter()
            .flatten()
            .flatten();
        let mut sizes = files
            .filter(|f| f.file_name() != "small")
            .map(|f| f.metadata());
        sizes.any(|meta| meta.is_ok_and(|meta| meta.len() > 0))
    });
    assert!(
        !server.path("incoming/large").exists(),
        "the server is too fast for this test"
    );
    // podman's own default of 10 s, after which it would kill.
    let stopped = clock::mono();
    run(store.here().args(["stop", CONTAINER]));
    assert_eq!(service.wait_exit(Duration::from_secs(60)).code(), Some(0));
    println!("stopped after {:?}", clock::mono() - stopped);
    assert!(
        clock::mono() - stopped < Duration::from_secs(10),
        "drained, not killed"
    );
    assert_eq!(fs::read(server.path("incoming/large")).unwrap(), large);
    let published = watcher.assert_clean();
    assert_eq!(
        published.into_iter().collect::<Vec<_>>(),
        ["incoming/large", "incoming/small"]
    );
    assert!(!spool.join("large").exists(), "delivered, so it is deleted");
}

#[test]
fn as_pid_1_the_image_reaps_orphans_and_starts_a_killed_service_again() {
    if !wanted() || !alone("as_pid_1_the_image_reaps_orphans_and_starts_a_killed_service_again") {
        return;
    }
    let store = Store::new();
    store.import_base();
    store.build_image();
    let server = Server::pyftpdlib(Opts::default());
    let mut deployed = Deployed::start(&store, &server);
    let service = &mut deployed.service;
    service.wait_log("program ready", |line| line["life"] == 1);
    let guard = store.first_process();
    let line = fs::read(format!("/proc/{guard}/cmdline")).unwrap();
    assert!(line.ends_with(b"run\0--watchdog\0"), "{line:?}");
    println!("the watchdog as PID 1: {:?} KiB", support::rss_of(guard));
    let first = descendants(guard);
    assert_eq!(first.len(), 1, "{first:?}");

    // An orphan of somebody who looks around in the container: it computes for a moment, so that
    // its parent is gone before it.
    let script = "(i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done) & exit 0";
    run(store.here().args(["exec", CONTAINER, "sh", "-c", script]));
    wait_until("the orphan is PID 1's", PATIENCE, || {
        descendants(guard).len() == 2
    });
    wait_until("the orphan is reaped", PATIENCE, || {
        descendants(guard) == first
    });

    // The service is killed with a file to send.
    let body = content(7, 100_000);
    let killed = clock::mono();
    send(first[0], Signal::KILL);
    service.put("main", "late", &body);
    let restart = service.wait_log("watchdog restart", |_| true);
    assert_eq!(
        (&restart["reason"], &restart["program"]),
        (&"exit".into(), &"signal 9".into())
    );
    service.wait_delivered("late");
    println!(
        "killed; delivered by the next life after {:?}",
        clock::mono() - killed
    );
    assert_eq!(fs::read(server.path("incoming/late")).unwrap(), body);
    let second = wait_for("the second life", PATIENCE, || {
        descendants(guard).first().copied()
    });
    assert_ne!(second, first[0]);
    assert_eq!(store.first_process(), guard, "the container is the same");
    let metrics = Metrics::parse(get("/metrics").body);
    let told = metrics.get("ftpulse_watchdog_restarts_total", &[("reason", "exit")]);
    assert_eq!(told, Some(1.0), "kept on the volume of the state");
    run(store.here().args(["stop", CONTAINER]));
    assert_eq!(service.wait_exit(Duration::from_secs(60)).code(), Some(0));
}
