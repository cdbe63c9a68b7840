//! The one place that asks what time it is. Decisions take a `Mono` as a parameter.

use std::sync::OnceLock;
#[cfg(feature = "lab")]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time: how long this process's clock has run. Not touched by steps of the wall clock.
pub type Mono = Duration;

/// Monotonic time since the first call in this process.
#[allow(clippy::disallowed_methods)]
pub fn mono() -> Mono {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    // One second of head start: zero can mean "never" in atomics, and small differences
    // before the first call cannot underflow.
    ZERO.get_or_init(Instant::now).elapsed() + Duration::from_secs(1)
}

/// Wall-clock time as Unix seconds, for people and metrics; never for decisions.
#[allow(clippy::disallowed_methods)]
pub fn unix() -> f64 {
    let system = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    system + step()
}

/// What the kernel's monotonic clock shows, in microseconds since an origin that all processes of
/// the machine share: for those that compare it with their own (sd_notify(3), `MONOTONIC_USEC`).
pub fn kernel_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
}

/// A Unix time for people, to the second: `2026-01-02T03:04:05Z`; empty where it is no time.
pub fn utc(unix: f64) -> String {
    // The formatter panics in the year 10000.
    if !(0.0..253_402_300_800.0).contains(&unix) {
        return String::new();
    }
    let at = UNIX_EPOCH + Duration::from_secs_f64(unix);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// How far the wall clock of this process was set off for a test.
#[cfg(feature = "lab")]
static STEP_MS: AtomicI64 = AtomicI64::new(0);

/// Sets the wall clock of this process forward, or back: what somebody's `date -s` does to it.
#[cfg(feature = "lab")]
pub fn step_wall(by_ms: i64) {
    STEP_MS.fetch_add(by_ms, Ordering::SeqCst);
}

#[cfg(feature = "lab")]
fn step() -> f64 {
    STEP_MS.load(Ordering::SeqCst) as f64 / 1e3
}

#[cfg(not(feature = "lab"))]
fn step() -> f64 {
    0.0
}
