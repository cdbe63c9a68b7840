//! From checked settings to the model: credentials, routes, and what a person may see of it.
//! It adds its faults to those found before and returns a model only if there is none at all.

mod destination;

use super::fault::Wrong;
use super::keys;
use super::model::*;
use super::settings::{DEFAULT, Settings};
use super::tls;
use super::value::Typed;
use super::{Loaded, Setting};
use crate::core::lease::Terms;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) struct Builder {
    settings: Settings,
    warnings: Vec<String>,
    /// What replaces the written value in the list of effective settings, with its origin.
    effective: BTreeMap<String, (String, String)>,
    /// What the system trusts, once a route has asked for it.
    roots: Option<tls::Roots>,
}

/// Builds the model; the settings come back if there is any fault.
pub(super) fn build(
    settings: Settings,
    warnings: Vec<String>,
    need_a_route: bool,
) -> Result<Loaded, Settings> {
    let mut builder = Builder {
        settings,
        warnings,
        effective: BTreeMap::new(),
        roots: None,
    };
    if need_a_route {
        builder.need_a_route();
    }
    builder.without_effect();
    let token = builder.token();
    let mut routes = BTreeMap::new();
    let names: Vec<String> = builder.settings.routes.keys().cloned().collect();
    for name in names {
        if let Some(route) = builder.route(&name) {
            routes.insert(name, Arc::new(route));
        }
    }
    let Some(config) = builder.config(routes, token) else {
        return Err(builder.settings);
    };
    let settings = builder.list();
    Ok(Loaded {
        config,
        warnings: builder.warnings,
        settings,
    })
}

impl Builder {
    fn config(
        &self,
        routes: BTreeMap<String, Arc<Route>>,
        token: Option<Secret>,
    ) -> Option<Config> {
        let s = &self.settings;
        if !s.faults.is_empty() {
            return None;
        }
        Some(Config {
            heartbeat: Heartbeat {
                interval: s.duration("heartbeat.interval"),
                misses: s.whole("heartbeat.misses"),
                lease: (s.choice("heartbeat.policy") == "lease").then(|| Terms {
                    term: s.duration("heartbeat.lease"),
                    floor: s.duration("heartbeat.lease_floor"),
                }),
                vouchers: s.choice("heartbeat.vouchers") == "all",
                max_stranded_workers: s.whole("heartbeat.max_stranded_workers"),
            },
            quarantine: Quarantine {
                capacity: s.whole("quarantine.capacity") as usize,
                per_destination: s.whole("quarantine.per_destination") as usize,
                hold: s.duration("quarantine.hold"),
                max_send_bytes: s.size("quarantine.max_send_bytes"),
            },
            timers: super::timers::of(s),
            retry: Retry {
                first: s.duration("retry.first"),
                max: s.duration("retry.max"),
                jitter: s.share("retry.jitter"),
                give_up_after: s.duration("retry.give_up_after"),
            },
            watchdog: Watchdog {
                interval: s.duration("watchdog.interval"),
                misses: s.whole("watchdog.misses"),
                window: s.duration("watchdog.window"),
                beats_required: s.choice("watchdog.beats") == "required",
                start_timeout: s.duration("watchdog.start_timeout"),
                pulse_interval: s.duration("watchdog.pulse_interval"),
                software_interval: s.duration("watchdog.software_interval"),
                kind_misses: s.whole("watchdog.kind_misses"),
            },
            routes,
            shutdown_grace: s.duration("shutdown.grace"),
            state_dir: s.path("state.dir")?,
            history: s.duration("state.history"),
            accept_resend: false,
            http: Http {
                listen: listen(s)?,
                token,
            },
            log: Log {
                level: level(s.choice("log.level")),
                format: format(s.choice("log.format")),
            },
        })
    }

    /// What was set but does nothing, beside what else is set.
    fn without_effect(&mut self) {
        let s = &self.settings;
        let set = |name: &str| s.has(name) && s.origin(name) != DEFAULT;
        let mut idle = Vec::new();
        if s.choice("heartbeat.policy") != "lease" {
            for name in ["heartbeat.lease", "heartbeat.lease_floor"] {
                if set(name) {
                    idle.push((
                        name.to_owned(),
                        "heartbeat.policy is not \"lease\"".to_owned(),
                    ));
                }
            }
        }
        for route in s.routes.keys() {
            let [settle, suffix] =
                ["settle", "ready_suffix"].map(|k| format!("routes.{route}.{k}"));
            if set(&settle) && set(&suffix) {
                idle.push((settle, format!("{suffix} says when a file is whole")));
            }
        }
        idle.extend(super::downloads::idle(s));
        self.warnings.extend(super::publishing::warnings(s));
        self.warnings.extend(tls::warnings(s));
        for (name, why) in idle {
            let origin = self.settings.origin(&name);
            let text = format!("{name} (from {origin}) has no effect: {why}");
            self.warnings.push(text);
        }
    }

    fn need_a_route(&mut self) {
        // A refused route is told already; one that is missing besides would only confuse.
        let refused = self
            .settings
            .faults
            .iter()
            .any(|fault| fault.key.starts_with("routes"));
        if self.settings.routes.is_empty() && !refused {
            let wrong = Wrong::new(
                "no route at all: there is nothing to send, and nowhere to send it to",
                "at least one route with spool, server, user and password",
                "set FTPULSE__ROUTES__MAIN__SPOOL=/spool, \
                 FTPULSE__ROUTES__MAIN__SERVER=ftpes://user@host/folder and \
                 FTPULSE__ROUTES__MAIN__PASSWORD_FILE=/run/secrets/ftp, or [routes.main] in a file",
            );
            self.settings.faults.push(wrong.of("routes", None));
        }
    }

    fn token(&mut self) -> Option<Secret> {
        let token = self.secret("http.token")?;
        let text = token.reveal();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let found = "a token that is empty or holds other signs (not shown)";
            let allowed = "visible ASCII without spaces";
            self.settings.fault(
                "http.token",
                Wrong::new(found, allowed, "write another token"),
            );
        }
        Some(token)
    }

    fn route(&mut self, route: &str) -> Option<Route> {
        let name = |leaf: &str| format!("routes.{route}.{leaf}");
        for key in keys::of_routes().filter(|key| key.required) {
            self.need(route, key);
        }
        let spool = self.settings.path(&name("spool"));
        if spool.as_ref().is_some_and(|spool| spool.parent().is_none()) {
            let found = "the root of the file system";
            let wrong = Wrong::new(found, "a folder of its own", "name the folder to watch");
            self.settings.fault(&name("spool"), wrong);
        }
        let server = self.server(route);
        let (spool, server) = (spool?, server?);
        let dead_letter = self.dead_letter(route, &spool)?;
        let s = &self.settings;
        Some(Route {
            name: route.into(),
            server,
            get: super::downloads::of(s, route),
            active: super::active::of(s, route),
            uploaders: s.whole(&name("uploaders")),
            include: s.patterns(&name("include")),
            exclude: s.patterns(&name("exclude")),
            recursive: s.bool(&name("recursive")),
            settle: s.duration(&name("settle")),
            ready_suffix: s.text(&name("ready_suffix")),
            order: match s.choice(&name("order")) {
                "newest" => Order::Newest,
                "name" => Order::Name,
                _ => Order::Oldest,
            },
            priority: s.signed(&name("priority")),
            rate_limit: s.size_or_none(&name("rate_limit")),
            verify: match s.choice(&name("verify")) {
                "hash" => Verify::Hash,
                "none" => Verify::None,
                _ => Verify::Size,
            },
            resume_over: s.size(&name("resume_over")),
            publishing: super::publishing::of(s, route),
            after: match (s.choice(&name("after")), s.path(&name("archive"))) {
                ("archive", Some(folder)) => After::Archive(folder),
                ("keep", _) => After::Keep,
                _ => After::Delete,
            },
            dead_letter,
            spool,
        })
    }

    fn need(&mut self, route: &str, key: &keys::Key) {
        let name = format!("routes.{route}.{}", key.leaf());
        if self.settings.has(&name) {
            return;
        }
        let found = format!(
            "nothing; the route {route} is named by {}",
            self.settings.routes[route]
        );
        let way_out = format!(
            "set {}={}, or {} = {:?} below [routes.{route}] in a file",
            keys::variable(&name),
            key.example,
            key.leaf(),
            key.example
        );
        let wrong = Wrong::new(found, super::value::allowed(key), way_out);
        self.settings.fault(&name, wrong);
    }

    fn dead_letter(&mut self, route: &str, spool: &std::path::Path) -> Option<PathBuf> {
        let name = format!("routes.{route}.dead_letter");
        if self.settings.has(&name) {
            return self.settings.path(&name);
        }
        let key = keys::of_routes().find(|key| key.leaf() == "dead_letter")?;
        let folder = spool.join(key.default?.strip_prefix("<spool>/")?);
        self.effective
            .insert(name, (folder.display().to_string(), DEFAULT.into()));
        Some(folder)
    }

    /// The effective settings in the order of the table; secrets are named, not shown.
    fn list(&self) -> Vec<Setting> {
        let routes = self.settings.routes.keys().flat_map(|route| {
            keys::of_routes().map(move |key| (format!("routes.{route}.{}", key.leaf()), key))
        });
        let all = keys::of_service()
            .map(|key| (key.name.to_owned(), key))
            .chain(routes);
        let shown = all.filter(|(_, key)| key.kind != keys::Kind::SecretFile);
        let settings = shown.filter_map(|(key, known)| {
            let (value, origin) = match self.effective.get(&key) {
                Some(effective) => effective.clone(),
                None => {
                    let origin = self.settings.origin(&key).to_owned();
                    (self.settings.shown(known, &key)?, origin)
                }
            };
            Some(Setting { key, value, origin })
        });
        settings.collect()
    }
}

fn listen(s: &Settings) -> Option<SocketAddr> {
    match s.get("http.listen") {
        Some(Typed::Address(address)) => Some(*address),
        _ => None,
    }
}

fn level(name: &str) -> slog::Level {
    match name {
        "critical" => slog::Level::Critical,
        "error" => slog::Level::Error,
        "warning" => slog::Level::Warning,
        "debug" => slog::Level::Debug,
        "trace" => slog::Level::Trace,
        _ => slog::Level::Info,
    }
}

fn format(name: &str) -> LogFormat {
    match name {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        _ => LogFormat::Auto,
    }
}
