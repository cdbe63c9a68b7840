//! The image: built from deploy/Dockerfile, run with a read-only root, without capabilities, as
//! user 65532, configured by environment alone; it uploads, drains on a stop and exits 0.
//! Needs root, podman, runc and debootstrap (no registry); FTPULSE_TEST_SKIP_CONTAINER=1 skips.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use support::process::tied;
use support::recipes::cache;
use support::servers::{Opts, Server, is_root};
use support::service::Settings;
use support::watcher::{Watcher, is_final_name};
use support::{PATIENCE, content, temp_dir, wait_until};

const IMAGE: &str = "localhost/ftpulse-test";
const USER: u32 = 65532;

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
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    for program in ["podman", "runc", "debootstrap"] {
        if !search
            .split(':')
            .any(|folder| PathBuf::from(folder).join(program).exists())
        {
            missing.push(program);
        }
    }
    assert!(
        missing.is_empty(),
        "the container test needs {}; install it, or set FTPULSE_TEST_SKIP_CONTAINER=1",
        missing.join(", ")
    );
    true
}

/// podman with a store of its own below the cache: the machine's images stay as they are.
fn podman(command: &mut Command) -> &mut Command {
    let store = cache().join("podman");
    command
        .arg("--root")
        .arg(store.join("root"))
        .arg("--runroot")
        .arg(store.join("run"));
    command.args([
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "file",
    ])
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

/// A base image from the machine's own Debian release, made once.
fn base() -> String {
    if let Ok(base) = std::env::var("FTPULSE_TEST_BASE") {
        return base;
    }
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite
        .expect("a Debian or Ubuntu names its release")
        .trim_matches('"');
    let base = format!("localhost/ftpulse-test-base-{suite}");
    let known = podman(&mut Command::new("podman"))
        .args(["image", "exists", &base])
        .output();
    if !known.unwrap().status.success() {
        let tree = cache().join("base");
        let archive = cache().join("base.tar");
        let _ = fs::remove_dir_all(&tree);
        let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        run(Command::new("debootstrap")
            .args(["--variant=minbase", suite])
            .arg(&tree)
            .env("PATH", search));
        run(Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        run(podman(&mut Command::new("podman"))
            .arg("import")
            .arg(&archive)
            .arg(&base));
        fs::remove_dir_all(&tree).unwrap();
        fs::remove_file(&archive).unwrap();
    }
    base
}

/// Builds the image around the binary under test.
fn build_image() {
    // Two test processes at once make one base image.
    let lock = File::create(cache().join("podman.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let context = temp_dir();
    fs::copy(
        env!("CARGO_BIN_EXE_ftpulse"),
        context.path().join("ftpulse"),
    )
    .unwrap();
    run(podman(&mut Command::new("podman"))
        .args([
            "build",
            "--target",
            "runtime-prebuilt",
            "--tag",
            IMAGE,
            "--file",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/Dockerfile"))
        .args([
            "--build-arg",
            &format!("BASE={}", base()),
            "--build-arg",
            "BINARY=ftpulse",
        ])
        .args(["--pull-never", "--isolation", "chroot"])
        .arg(context.path()));
}

/// `podman run` as the deployment does it, with the strictest settings.
fn confined<'a>(command: &'a mut Command, name: &str) -> &'a mut Command {
    podman(command)
        .args([
            "run",
            "--rm",
            "--name",
            name,
            "--read-only",
            "--user",
            "65532",
        ])
        .args([
            "--cap-drop",
            "all",
            "--security-opt",
            "no-new-privileges",
            "--network",
            "host",
            "--ulimit",
            "nofile=1024:20000",
            "--ulimit",
            "nproc=1024:1024",
        ])
}

/// Removes a container whatever became of the test.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = podman(&mut Command::new("podman"))
            .args([
                "rm",
                "--force",
                "--ignore",
                "--volumes",
                "--time",
                "0",
                &self.0,
            ])
            .output();
    }
}

#[test]
fn the_image_uploads_without_privileges_and_drains_when_it_is_stopped() {
    if !wanted() {
        return;
    }
    build_image();
    let name = format!("ftpulse-test-{}", std::process::id());
    let _removed = Removed(name.clone());
    let version = run(confined(&mut Command::new("podman"), &name).args([IMAGE, "--version"]));
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
    let settings = Settings::new().route("main", &server, "").quick();
    let spool = settings.spool("main");
    std::os::unix::fs::chown(&spool, Some(USER), Some(USER)).unwrap();
    let mut command = tied("podman");
    confined(&mut command, &name)
        .arg("--volume")
        .arg(format!("{}:/spool", spool.display()));
    for (variable, value) in settings.vars() {
        let value = match variable.as_str() {
            "FTPULSE__ROUTES__MAIN__SPOOL" => "/spool",
            "FTPULSE__STATE__DIR" => "/var/lib/ftpulse",
            _ => value,
        };
        command.args(["--env", &format!("{variable}={value}")]);
    }
    command.arg(IMAGE);
    let mut service = settings.launch_by(command);
    service.wait_listening();

    // What the kernel says of its rights.
    let pid = text(&run(podman(&mut Command::new("podman")).args([
        "inspect",
        "--format",
        "{{.State.Pid}}",
        &name,
    ])));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .trim()
    };
    assert_eq!(field("Uid:").split_whitespace().next(), Some("65532"));
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");

    let small = content(1, 10_000);
    watcher.allow("small", &small);
    service.put("main", "small", &small);
    service.wait_delivered("small");
    assert_eq!(service.get("/healthz").status, 200);
    let delivered = [("route", "main"), ("outcome", "delivered")];
    assert!(service.metrics().sum("ftpulse_files_total", &delivered) >= 1.0);

    // Stopped in the middle of a file: it still arrives, whole.
    let large = content(2, 8 * 1024 * 1024);
    watcher.allow("large", &large);
    service.put("main", "large", &large);
    wait_until("the large file is under way", PATIENCE, || {
        let files = fs::read_dir(&server.root).unwrap().flatten();
        let mut sizes = files
            .filter(|f| f.file_name() != "small")
            .map(|f| f.metadata());
        sizes.any(|meta| meta.is_ok_and(|meta| meta.len() > 0))
    });
    assert!(
        !server.path("large").exists(),
        "the server is too fast for this test"
    );
    run(podman(&mut Command::new("podman")).args(["stop", "--time", "20", &name]));
    assert_eq!(service.wait_exit(Duration::from_secs(60)).code(), Some(0));
    assert_eq!(fs::read(server.path("large")).unwrap(), large);
    assert_eq!(
        watcher.assert_clean().into_iter().collect::<Vec<_>>(),
        ["large", "small"]
    );
    assert!(!spool.join("large").exists(), "delivered, so it is deleted");
}
