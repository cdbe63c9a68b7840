//! A small disk that a test can fill: a tmpfs in a mount namespace of the test's own, so that
//! nothing of it is left behind, not even when the test process is killed. The test runs itself
//! once more in there: every process that it starts sees the disk.

#![allow(dead_code)] // each test file uses its own part

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::process::{spawn, tied};
use super::support::servers::is_root;
use super::support::{temp_dir, wait_for};

const INSIDE: &str = "FTPULSE_TEST_INSIDE_MOUNTS";
/// How long a test inside may take.
const BOUND: std::time::Duration = std::time::Duration::from_secs(400);

fn unshare() -> Vec<&'static str> {
    let mut args = vec!["--mount", "--propagation", "private"];
    if !is_root() {
        args.extend(["--user", "--map-root-user"]);
    }
    args
}

/// True within the namespace: there the test is to be done. Outside it runs `test` in there and
/// is false. A machine that permits no mount namespace skips it, and says so.
#[allow(clippy::print_stdout)]
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let tried = Command::new("unshare")
        .args(unshare())
        .args(["mount", "-t", "tmpfs", "none", "/mnt"])
        .stderr(Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: mount namespaces are not permitted");
        return false;
    }
    // What lies under a mounted disk cannot be removed in there; out here there is no disk.
    let folder = temp_dir();
    let mut command = tied("unshare");
    command
        .args(unshare())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("TMPDIR", folder.path())
        .env(INSIDE, if is_root() { "root" } else { "user" });
    let mut run = spawn(command).unwrap();
    let status = wait_for("the test inside ends", BOUND, || run.ended());
    assert!(status.success(), "{test} failed inside: {status}");
    false
}

/// Whether this is root, not only within its namespace.
pub fn really_root() -> bool {
    std::env::var_os(INSIDE).is_some_and(|who| who == "root")
}

/// The disk.
pub struct SmallDisk {
    ballast: PathBuf,
}

impl SmallDisk {
    /// Mounts it over a folder, which keeps its owner.
    pub fn mount(at: &Path, bytes: u64) -> Self {
        let owner = fs::metadata(at).unwrap();
        let options = format!(
            "size={bytes},mode=755,uid={},gid={}",
            owner.uid(),
            owner.gid()
        );
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "small"])
            .arg(at)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "mount: {said}");
        let ballast = at.join(".ballast");
        Self { ballast }
    }

    /// Fills it to its last page.
    pub fn fill(&self) {
        let mut options = File::options();
        let mut file = options
            .create(true)
            .append(true)
            .open(&self.ballast)
            .unwrap();
        for piece in [64 << 10, 4096, 1] {
            while file.write_all(&vec![b'b'; piece]).is_ok() {}
        }
    }

    /// Takes all that filled it away.
    pub fn make_room(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}
