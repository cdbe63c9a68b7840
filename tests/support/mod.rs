//! What the tests share: real servers, the service as a process, a watcher for torn files.
//! Everything here waits for events with generous bounds, takes its ports and folders from the
//! kernel, and leaves nothing behind, not even when the test process is killed.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test says no

pub mod browser;
pub mod certificates;
pub mod consumer;
pub mod http;
pub mod netns;
pub mod process;
pub mod recipes;
pub mod servers;
pub mod service;
pub mod watcher;

use std::time::Duration;

use ftpulse::clock;

/// The bound of a wait whose length is not what the test is about.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own, world-readable (servers drop their privileges), removed on drop.
pub fn temp_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new()
        .prefix("ftpulse-test-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Waits until `ready` gives a value; panics naming `what` when `bound` has passed.
/// For conditions that no event announces; looks every 5 ms.
pub fn wait_for<T>(what: &str, bound: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = clock::mono() + bound;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(clock::mono() < end, "waited {bound:?} in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until `holds` is true; panics naming `what` when `bound` has passed.
pub fn wait_until(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, bound, || holds().then_some(()));
}

/// `len` bytes that look random and are told by their seed.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// How many of something a test does: its share of a suite, or what the environment demands.
pub fn count_of(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}"))
    })
}

/// Resident memory of a process, KiB.
#[derive(Debug, Clone, Copy)]
pub struct Rss {
    /// At this moment.
    pub now: u64,
    /// The most there ever was.
    pub peak: u64,
}

/// Reads the resident memory of a process.
pub fn rss_of(pid: u32) -> Rss {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.split_whitespace().next());
        value.unwrap().parse().unwrap()
    };
    Rss {
        now: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}
