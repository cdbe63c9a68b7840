//! Sizes, spans and times as people read them. Whatever number comes, a word comes out: a foreign
//! service may send any.

use std::time::{Duration, UNIX_EPOCH};

/// The year 10000, which no date of four digits reaches.
const LAST: f64 = 253_402_300_800.0;

/// A size.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span of seconds in its two greatest units; less than nothing (clocks differ) is nothing.
pub fn span(seconds: f64) -> String {
    // NaN gives 0.
    let seconds = seconds.max(0.0);
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    // Saturates where a float is too great.
    let whole = seconds.round() as u64;
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, rest) = (whole / 60 % 60, whole % 60);
    match whole {
        0..60 => format!("{rest}s"),
        60..3600 => format!("{minutes}m {rest}s"),
        3600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A Unix time as UTC, to the second: `2026-01-02T03:04:05Z`.
pub fn when(unix: f64) -> String {
    at(unix).map_or_else(unknown, |at| {
        humantime::format_rfc3339_seconds(at).to_string()
    })
}

/// The same to the millisecond.
pub fn exactly(unix: f64) -> String {
    at(unix).map_or_else(unknown, |at| {
        humantime::format_rfc3339_millis(at).to_string()
    })
}

fn at(unix: f64) -> Option<std::time::SystemTime> {
    // The formatter panics beyond.
    if unix >= LAST {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(unix).ok()?)
}

fn unknown() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        let told: Vec<_> = [0, 1023, 1024, 2 << 20, (1 << 20) - 1].map(size).into();
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "2.0 MiB", "1.0 MiB"]);
    }

    #[test]
    fn spans_are_told_in_two_units() {
        let spans = [
            (-5.0, "0.0s"),
            (f64::NAN, "0.0s"),
            (1.26, "1.3s"),
            (9.97, "10s"),
            (59.6, "1m 0s"),
            (200.0, "3m 20s"),
            (3600.0 * 3.5, "3h 30m"),
            (86_400.0 * 12.5, "12d 12h"),
        ];
        for (seconds, told) in spans {
            assert_eq!(span(seconds), told, "{seconds}");
        }
        assert!(span(f64::INFINITY).ends_with('h'));
    }

    #[test]
    fn times_are_utc_and_impossible_ones_are_unknown() {
        assert_eq!(when(1_767_323_045.9), "2026-01-02T03:04:05Z");
        assert_eq!(exactly(1_767_323_045.25), "2026-01-02T03:04:05.250Z");
        for impossible in [-1.0, f64::NAN, f64::INFINITY, LAST, 1e300] {
            assert_eq!(when(impossible), "unknown", "{impossible}");
        }
        assert_eq!(when(LAST - 1.0), "9999-12-31T23:59:59Z");
    }
}
