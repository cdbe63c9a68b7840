//! What settings must hold among each other. Each value alone has passed already; a rule about
//! a refused value stays silent, and none touches the file system.

use super::fault::Wrong;
use super::settings::Settings;
use super::value::Typed;
use std::path::{Path, PathBuf};

/// Checks all rules; the faults go into `settings`.
pub(super) fn check(settings: &mut Settings) {
    retry(settings);
    lease(settings);
    quarantine(settings);
    watchdog(settings);
    let names: Vec<String> = settings.routes.keys().cloned().collect();
    for (index, name) in names.iter().enumerate() {
        folders(settings, name);
        ready_suffix(settings, name);
        super::publishing::check(settings, name);
        super::downloads::check(settings, name);
        super::tls::check(settings, name);
        super::active::check(settings, name);
        state(settings, name);
        for other in names.iter().skip(index + 1) {
            spools(settings, name, other);
        }
    }
}

fn retry(settings: &mut Settings) {
    if !settings.sound(&["retry.first", "retry.max"]) {
        return;
    }
    let (first, max) = (
        settings.duration("retry.first"),
        settings.duration("retry.max"),
    );
    if first > max {
        let name = settings.set_by_hand(["retry.first", "retry.max"]);
        let found = format!(
            "retry.first {} ({}) is longer than retry.max {} ({})",
            humantime::format_duration(first),
            settings.origin("retry.first"),
            humantime::format_duration(max),
            settings.origin("retry.max"),
        );
        let way_out = "make retry.first shorter, or retry.max longer";
        settings.fault(
            name,
            Wrong::new(found, "retry.first up to retry.max", way_out),
        );
    }
}

/// A good beat is known two intervals after its Ping: a shorter lease would end in good health.
fn lease(settings: &mut Settings) {
    let names = [
        "heartbeat.policy",
        "heartbeat.interval",
        "heartbeat.lease",
        "heartbeat.lease_floor",
    ];
    if !settings.sound(&names) || settings.choice("heartbeat.policy") != "lease" {
        return;
    }
    let [interval, lease, floor] = [names[1], names[2], names[3]].map(|n| settings.duration(n));
    let shown = humantime::format_duration;
    if lease < interval * 3 {
        let found = format!(
            "{}, with heartbeat.interval {}",
            shown(lease),
            shown(interval)
        );
        let allowed = format!("at least three intervals, here {}", shown(interval * 3));
        let way_out = "make heartbeat.lease longer, or heartbeat.interval shorter";
        settings.fault("heartbeat.lease", Wrong::new(found, allowed, way_out));
    }
    if floor > interval {
        let found = format!(
            "{}, with heartbeat.interval {}",
            shown(floor),
            shown(interval)
        );
        let allowed = "at most heartbeat.interval";
        let way_out = "make heartbeat.lease_floor shorter, or heartbeat.interval longer";
        settings.fault("heartbeat.lease_floor", Wrong::new(found, allowed, way_out));
    }
}

/// A window in which the misses have no room would never convict; a software beat has to be
/// slower than the pulses that it is derived from.
fn watchdog(settings: &mut Settings) {
    let shown = humantime::format_duration;
    let names = ["watchdog.interval", "watchdog.misses", "watchdog.window"];
    if settings.sound(&names) {
        let misses: u32 = settings.whole("watchdog.misses");
        let [interval, window] = [names[0], names[2]].map(|n| settings.duration(n));
        let needed = interval * (misses + 1);
        if window < needed {
            let found = format!(
                "watchdog.window {}, with watchdog.interval {} and watchdog.misses {misses}",
                shown(window),
                shown(interval)
            );
            let allowed = format!("a window of misses + 1 intervals, here {}", shown(needed));
            let way_out = "make watchdog.window longer, or watchdog.interval shorter";
            let name = settings.set_by_hand(["watchdog.window", names[0], names[1]]);
            settings.fault(name, Wrong::new(found, allowed, way_out));
        }
    }
    let names = ["watchdog.pulse_interval", "watchdog.software_interval"];
    if settings.sound(&names) {
        let [pulse, software] = names.map(|n| settings.duration(n));
        if software < pulse * 2 {
            let found = format!(
                "watchdog.software_interval {}, with watchdog.pulse_interval {}",
                shown(software),
                shown(pulse)
            );
            let allowed = format!("at least two pulses, here {}", shown(pulse * 2));
            let way_out =
                "make watchdog.software_interval longer, or watchdog.pulse_interval shorter";
            let name = settings.set_by_hand([names[1], names[0]]);
            settings.fault(name, Wrong::new(found, allowed, way_out));
        }
    }
}

/// Were there fewer places than slots, one bad moment could throw out pairs that are still fresh.
fn quarantine(settings: &mut Settings) {
    let uploaders: Vec<_> = settings
        .routes
        .keys()
        .map(|route| format!("routes.{route}.uploaders"))
        .collect();
    let mut involved: Vec<&str> = uploaders.iter().map(String::as_str).collect();
    involved.push("quarantine.capacity");
    if !settings.sound(&involved) {
        return;
    }
    let slots: u64 = uploaders
        .iter()
        .map(|name| u64::from(settings.whole(name)))
        .sum();
    let capacity = u64::from(settings.whole("quarantine.capacity"));
    if slots > capacity {
        let found = format!("{capacity} places for {slots} uploaders over all routes");
        let allowed = format!("at least as many places as uploaders, here {slots}");
        let way_out =
            format!("set quarantine.capacity to {slots} or more, or lower routes.NAME.uploaders");
        settings.fault("quarantine.capacity", Wrong::new(found, allowed, way_out));
    }
}

/// The folders of one route: what is put away must not come back as new.
fn folders(settings: &mut Settings, route: &str) {
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    let after = settings.choice(&name("after"));
    let archive = settings.path(&name("archive"));
    let is_archive = after == "archive";
    if settings.sound(&[&name("after"), &name("archive")]) && is_archive != archive.is_some() {
        let wrong = match archive {
            None => Wrong::new(
                "after = \"archive\", but no archive folder",
                "after = \"archive\" together with archive",
                format!(
                    "set {} to a folder, or after to delete or keep",
                    name("archive")
                ),
            ),
            Some(_) => Wrong::new(
                format!("an archive folder, but after = {after:?}: nothing would be archived"),
                "archive together with after = \"archive\"",
                format!("set {} to archive, or remove archive", name("after")),
            ),
        };
        settings.fault(&name(if is_archive { "after" } else { "archive" }), wrong);
    }
    let Some(spool) = settings.path(&name("spool")) else {
        return;
    };
    let local = super::downloads::local_folders(settings, route);
    for leaf in local {
        let Some(folder) = settings.path(&name(leaf)) else {
            continue;
        };
        if spool.starts_with(&folder) {
            let relation = if spool == folder { "is" } else { "contains" };
            let found = format!("{folder:?}, which {relation} the spool {spool:?}");
            let allowed = "a folder inside the spool (it is left out of it) or beside it";
            settings.fault(
                &name(leaf),
                Wrong::new(found, allowed, "name another folder"),
            );
        }
    }
    let dead_letter = settings.path(&name("dead_letter"));
    if let (Some(archive), Some(dead_letter)) = (settings.path(&name("archive")), dead_letter)
        && archive == dead_letter
        && local.contains(&"archive")
    {
        let found = format!("{dead_letter:?}, which is also the archive");
        let wrong = Wrong::new(found, "a folder of its own", "name another folder");
        settings.fault(&name("dead_letter"), wrong);
    }
}

/// Longer ones would leave no room for the file's own name.
const SUFFIX_MAX: usize = 100;

/// What is appended to a file's name has to give another name of the same folder, and one that
/// is looked at.
fn ready_suffix(settings: &mut Settings, route: &str) {
    let name = format!("routes.{route}.ready_suffix");
    let Some(suffix) = settings.text(&name) else {
        return;
    };
    let why = if suffix.is_empty() {
        "an empty text: every file would be its own marker"
    } else if suffix.contains('/') {
        "with a /: the marker stands beside its file, in the same folder"
    } else if suffix.chars().any(char::is_control) {
        "with a control character: names that hold one are left alone"
    } else if suffix.ends_with(".tmp") || suffix.ends_with(".part") {
        "but names that end in .tmp or .part are work in progress and never looked at"
    } else if suffix.len() > SUFFIX_MAX {
        "which is too long"
    } else {
        return;
    };
    let allowed = format!("the end of a file name, 1 to {SUFFIX_MAX} bytes, such as .ready");
    let way_out = "write another suffix, or remove the key: files are taken when they have settled";
    settings.fault(
        &name,
        Wrong::new(format!("{suffix:?}, {why}"), allowed, way_out),
    );
}

/// The service's own state must not be taken for files to send.
fn state(settings: &mut Settings, route: &str) {
    let spool_name = format!("routes.{route}.spool");
    let (Some(Typed::Path(spool)), Some(Typed::Path(state))) =
        (settings.get(&spool_name), settings.get("state.dir"))
    else {
        return;
    };
    // A spool that is the root holds everything: it is refused for that alone.
    let sound = settings.sound(&["state.dir"]) && spool.parent().is_some();
    if sound && holds(spool, recursive(settings, route), state) {
        let found = format!("{state:?}, which lies in {spool_name} {spool:?}");
        let wrong = Wrong::new(found, "a folder outside every spool", "name another folder");
        settings.fault("state.dir", wrong);
    }
}

/// No file may belong to two routes.
fn spools(settings: &mut Settings, a: &str, b: &str) {
    let spool = |route: &str| settings.path(&format!("routes.{route}.spool"));
    let (Some(folder_a), Some(folder_b)) = (spool(a), spool(b)) else {
        return;
    };
    let (outer, inner) = if folder_b.starts_with(&folder_a) {
        ((a, &folder_a), (b, &folder_b))
    } else {
        ((b, &folder_b), (a, &folder_a))
    };
    if holds(outer.1, recursive(settings, outer.0), inner.1) {
        let name = format!("routes.{}.spool", inner.0);
        let relation = if folder_a == folder_b {
            "is also"
        } else {
            "lies inside"
        };
        let found = format!(
            "{:?}, which {relation} routes.{}.spool {:?} ({})",
            inner.1,
            outer.0,
            outer.1,
            settings.origin(&format!("routes.{}.spool", outer.0))
        );
        let way_out = if folder_a == folder_b {
            "give each route a folder of its own".into()
        } else {
            format!(
                "name a folder outside, or set routes.{}.recursive = false",
                outer.0
            )
        };
        settings.fault(
            &name,
            Wrong::new(found, "one route for each folder", way_out),
        );
    }
}

fn recursive(settings: &Settings, route: &str) -> bool {
    settings.bool(&format!("routes.{route}.recursive"))
}

/// Whether files in `inner` are also files of the spool `outer`.
fn holds(outer: &Path, recursive: bool, inner: &PathBuf) -> bool {
    outer == inner || (recursive && inner.starts_with(outer))
}
