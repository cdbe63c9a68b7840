//! A real systemd as PID 1 of namespaces of its own, on this machine's own root: /run, /srv, /var/lib
//! and the units are the test's, /proc/sys and /sys cannot be written, and its cgroups are below one
//! that is removed with it. Needs root.
#![allow(dead_code)] // each test file uses its own part

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ftpulse::clock;

use super::support::process::{Running, spawn, tied};
use super::support::servers::is_root;
use super::support::{PATIENCE, temp_dir, wait_for, wait_until};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// How long one `systemctl` may take.
const BOUND: &str = "60";

/// From the new namespaces to systemd. $1 is the folder of the test.
const BOOT: &str = r#"
set -e
mount -t proc proc /proc
mount -o bind,ro /proc/sys /proc/sys
mount -o bind /sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -o remount,bind,ro /sys
mount -t tmpfs tmpfs /srv
mount -t tmpfs -o mode=755 tmpfs /var/lib
cp -r "$1/srv/." /srv
touch /srv/ftpulse
mount --bind "$2" /srv/ftpulse
for file in passwd group; do mount --bind "$1/$file" "/etc/$file"; done
mount -t tmpfs tmpfs /etc/systemd/system
cp -r "$1/units/." /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /run
sh /srv/prepare
# Among the namespaces in here, as a machine has it: credentials reach their unit so.
mount --make-rshared /
export container=ftpulse-test
exec /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=false
"#;

/// Why no systemd can be booted here, if so.
pub fn impossible() -> Option<String> {
    if !is_root() {
        return Some("it takes root".into());
    }
    if cgroup2().is_none() {
        return Some("no cgroup2 is mounted".into());
    }
    let tried = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--cgroup"])
        .args(["mount", "-t", "cgroup2", "cgroup2", "/mnt"])
        .output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Where this process's own cgroup of version 2 is.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        (words.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(words[1]))
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(own))
}

/// What it boots with.
pub struct Root {
    dir: tempfile::TempDir,
}

impl Root {
    /// Users of this machine and `ftpulse`; no units.
    pub fn new() -> Self {
        let dir = temp_dir();
        for (file, line) in [
            (
                "passwd",
                "ftpulse:x:64123:64123::/nonexistent:/usr/sbin/nologin\n",
            ),
            ("group", "ftpulse:x:64123:\n"),
        ] {
            let known = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
            fs::write(dir.path().join(file), known + line).unwrap();
        }
        fs::create_dir(dir.path().join("units")).unwrap();
        fs::create_dir(dir.path().join("srv")).unwrap();
        let root = Self { dir };
        root.unit("test.target", "[Unit]\nDefaultDependencies=no\n");
        root.file("prepare", "");
        root
    }

    /// A unit, or a drop-in of one.
    pub fn unit(&self, name: &str, text: &str) {
        self.write(&Path::new("units").join(name), text);
    }

    /// A file below /srv; the script `prepare` there is run before systemd.
    pub fn file(&self, name: &str, text: &str) {
        self.write(&Path::new("srv").join(name), text);
    }

    fn write(&self, name: &Path, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Boots; returns when it takes orders. The built program is /srv/ftpulse.
    pub fn boot(self) -> Systemd {
        let cgroup = cgroup2()
            .unwrap()
            .join(format!("ftpulse-test-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let log = self.dir.path().join("log");
        let out = File::create(&log).unwrap();
        let mut command = tied("sh");
        command
            .args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec unshare "$@""#])
            .arg(&cgroup)
            .args([
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["--ipc", "--uts", "--cgroup", "sh", "-c", BOOT, "boot"])
            .arg(self.dir.path())
            .arg(env!("CARGO_BIN_EXE_ftpulse"))
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let process = spawn(command).unwrap();
        let mut systemd = Systemd {
            process,
            dir: self.dir,
            cgroup,
            log,
            init: 0,
        };
        systemd.init = wait_for("systemd runs", PATIENCE, || {
            let is_systemd = |pid: &u32| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("systemd"))
            };
            systemd.process.descendants().into_iter().find(is_systemd)
        });
        wait_until("systemd takes orders", PATIENCE, || {
            systemd.systemctl(&["show", "test.target"]).0
        });
        systemd
    }
}

/// A running systemd.
pub struct Systemd {
    process: Running,
    dir: tempfile::TempDir,
    cgroup: PathBuf,
    log: PathBuf,
    /// Its number out here.
    init: u32,
}

impl Systemd {
    /// A command within its namespaces: whether it succeeded, and what it said.
    pub fn within(&self, args: &[&str]) -> (bool, String) {
        let done = Command::new("nsenter")
            .args(["-t", &self.init.to_string(), "-m", "-p", "-i", "-u", "-C"])
            .args(["timeout", BOUND])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// `systemctl`.
    pub fn systemctl(&self, args: &[&str]) -> (bool, String) {
        self.within(&[&["systemctl", "--no-pager"], args].concat())
    }

    /// A property of the unit `ftpulse`.
    pub fn property(&self, name: &str) -> String {
        let (_, said) = self.systemctl(&["show", "ftpulse", "--value", "-p", name]);
        said.trim().to_owned()
    }

    /// Waits until a property is as wanted.
    pub fn wait_property(&self, name: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = clock::mono() + PATIENCE;
        loop {
            let value = self.property(name);
            if wanted(&value) {
                return value;
            }
            assert!(clock::mono() < end, "{name} is {value}\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// What the services wrote to /srv/log so far.
    pub fn said(&self) -> String {
        let said = fs::read(self.path("/srv/log")).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Waits until they wrote that after the first `from` bytes.
    pub fn wait_said(&self, from: usize, text: &str) {
        let end = clock::mono() + PATIENCE;
        while !self
            .said()
            .get(from..)
            .is_some_and(|log| log.contains(text))
        {
            assert!(
                clock::mono() < end,
                "never written: {text}\n{}",
                self.logs()
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let boot = fs::read_to_string(&self.log).unwrap();
        format!("--- boot\n{boot}\n--- services\n{}", self.said())
    }

    /// A file in there, seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.process.kill();
        wait_until("its cgroups are gone", PATIENCE, || {
            remove(&self.cgroup);
            !self.cgroup.exists()
        });
    }
}

/// Removes a cgroup and those below; those in use stay.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
