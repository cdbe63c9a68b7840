//! What a newly read configuration changes in a running service: which routes come, change and go,
//! which settings hold from now on, and which only from the next start on. It compares and decides;
//! it touches nothing.

use super::model::{Config, Heartbeat, Http, Log, Route};
use std::sync::Arc;

/// What has to be done.
#[derive(Debug)]
pub struct Plan {
    /// What holds from now on: the new configuration, but for what needs a restart.
    pub config: Config,
    /// Routes that are new.
    pub added: Vec<String>,
    /// Routes with another setting.
    pub changed: Vec<String>,
    /// Routes that are not configured any more.
    pub removed: Vec<String>,
    /// Settings outside the routes that hold from now on.
    pub applied: Vec<&'static str>,
    /// Settings that hold from the next start on; the old ones hold until then.
    pub needs_restart: Vec<&'static str>,
}

/// A setting outside the routes, and whether both have the same.
type Setting = (&'static str, fn(&Config, &Config) -> bool);

macro_rules! setting {
    ($key:literal, $($field:ident).+) => {
        ($key, |a, b| a.$($field).+ == b.$($field).+)
    };
}

/// What changes while the service runs.
const LIVE: &[Setting] = &[
    setting!("heartbeat.vouchers", heartbeat.vouchers),
    setting!(
        "heartbeat.max_stranded_workers",
        heartbeat.max_stranded_workers
    ),
    setting!("quarantine.capacity", quarantine.capacity),
    setting!("quarantine.per_destination", quarantine.per_destination),
    setting!("quarantine.hold", quarantine.hold),
    setting!("quarantine.max_send_bytes", quarantine.max_send_bytes),
    setting!("timers.control_connect", timers.control_connect),
    setting!(
        "timers.control_connect_attempts",
        timers.control_connect_attempts
    ),
    setting!(
        "timers.control_connect_interval",
        timers.control_connect_interval
    ),
    setting!("timers.reply", timers.reply),
    setting!("timers.read_lock_retries", timers.read_lock_retries),
    setting!("timers.read_lock_interval", timers.read_lock_interval),
    setting!("timers.write_lock_retries", timers.write_lock_retries),
    setting!("timers.write_lock_interval", timers.write_lock_interval),
    setting!("timers.data_connect", timers.data_connect),
    setting!("timers.data_connect_attempts", timers.data_connect_attempts),
    setting!("timers.data_connect_interval", timers.data_connect_interval),
    setting!("timers.transfer_put", timers.transfer_put),
    setting!("timers.transfer_get", timers.transfer_get),
    setting!("timers.listen", timers.listen),
    setting!("timers.stall", timers.stall),
    setting!("timers.disk", timers.disk),
    setting!("timers.compute", timers.compute),
    setting!("timers.dns", timers.dns),
    setting!("timers.tls", timers.tls),
    setting!("timers.idle_session", timers.idle_session),
    setting!("retry.first", retry.first),
    setting!("retry.max", retry.max),
    setting!("retry.jitter", retry.jitter),
    setting!("retry.give_up_after", retry.give_up_after),
    setting!("shutdown.grace", shutdown_grace),
    setting!("http.token", http.token),
    setting!("log.level", log.level),
];

/// What a running service is built around.
const AT_START: &[Setting] = &[
    setting!("heartbeat.interval", heartbeat.interval),
    setting!("heartbeat.misses", heartbeat.misses),
    ("heartbeat.policy", |a, b| {
        a.heartbeat.lease.is_some() == b.heartbeat.lease.is_some()
    }),
    ("heartbeat.lease", |a, b| {
        let both = a.heartbeat.lease.zip(b.heartbeat.lease);
        both.is_none_or(|(a, b)| a.term == b.term)
    }),
    ("heartbeat.lease_floor", |a, b| {
        let both = a.heartbeat.lease.zip(b.heartbeat.lease);
        both.is_none_or(|(a, b)| a.floor == b.floor)
    }),
    setting!("watchdog.interval", watchdog.interval),
    setting!("watchdog.misses", watchdog.misses),
    setting!("watchdog.window", watchdog.window),
    setting!("watchdog.beats", watchdog.beats_required),
    setting!("watchdog.start_timeout", watchdog.start_timeout),
    setting!("watchdog.pulse_interval", watchdog.pulse_interval),
    setting!("watchdog.software_interval", watchdog.software_interval),
    setting!("watchdog.kind_misses", watchdog.kind_misses),
    setting!("state.dir", state_dir),
    setting!("state.history", history),
    setting!("http.listen", http.listen),
    setting!("log.format", log.format),
];

/// What it takes to get from `old`, which runs, to `new`.
pub fn plan(old: &Config, new: &Config) -> Plan {
    let differ = |settings: &[Setting]| {
        let other = settings.iter().filter(|(_, same)| !same(old, new));
        other.map(|(key, _)| *key).collect()
    };
    let names = |of: &Config, not_in: &Config| {
        let alone = |name: &&String| !not_in.routes.contains_key(*name);
        of.routes.keys().filter(alone).cloned().collect()
    };
    let mut config = held(old, new);
    let mut changed = Vec::new();
    for (name, route) in &mut config.routes {
        match old.routes.get(name) {
            // The same one, so that nobody takes it for another.
            Some(before) if before == route => *route = Arc::clone(before),
            Some(_) => changed.push(name.clone()),
            None => {}
        }
    }
    Plan {
        config,
        added: names(new, old),
        changed,
        removed: names(old, new),
        applied: differ(LIVE),
        needs_restart: differ(AT_START),
    }
}

/// The new configuration with what needs a restart as it was.
fn held(old: &Config, new: &Config) -> Config {
    Config {
        heartbeat: Heartbeat {
            vouchers: new.heartbeat.vouchers,
            max_stranded_workers: new.heartbeat.max_stranded_workers,
            ..old.heartbeat.clone()
        },
        state_dir: old.state_dir.clone(),
        history: old.history,
        http: Http {
            listen: old.http.listen,
            token: new.http.token.clone(),
        },
        log: Log {
            level: new.log.level,
            format: old.log.format,
        },
        ..new.clone()
    }
}

/// Whether a route with these settings is another one: another spool, another way, or another
/// place for its files. What runs has to come to its end before the new one begins.
pub fn moves(old: &Route, new: &Route) -> bool {
    old.spool != new.spool || old.get.is_some() != new.get.is_some() || goes_elsewhere(old, new)
}

/// Whether its files go to another place: what is known of temp names there holds no more.
pub fn goes_elsewhere(old: &Route, new: &Route) -> bool {
    let place = |route: &Route| (route.server.key(), route.server.folder.clone());
    place(old) != place(new)
}

#[cfg(test)]
mod tests;
