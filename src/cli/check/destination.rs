//! What is tried: each remote folder of each login once, whatever the number of routes that lead
//! there; and what can be found out about it, as one line each.

use std::sync::Arc;

use crate::config::{Config, Route};
use crate::log::escape;

/// A remote folder of a login.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The first route that leads there.
    pub route: Arc<Route>,
    /// The names of all of them.
    pub routes: Vec<String>,
}

impl Destination {
    /// How a person knows it.
    pub fn title(&self) -> String {
        let server = &self.route.server;
        let s = if self.routes.len() == 1 { "" } else { "s" };
        // A host in capitals or an IPv6 address is shown as it was given.
        let folder = if server.folder.is_empty() {
            "the login folder".into()
        } else {
            format!("folder {}", escape(&server.folder))
        };
        format!(
            "{}, {folder} (route{s} {})",
            escape(&server.key()),
            self.routes.join(", ")
        )
    }
}

/// The destinations of a configuration, in the order of their routes.
pub fn of(config: &Config) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    for (name, route) in &config.routes {
        // What is asked of a server hangs on more than its place.
        let same = |known: &&mut Destination| {
            let (a, b) = (&known.route, route);
            let direction = a.get.is_some() == b.get.is_some();
            direction && a.server == b.server && a.active == b.active && a.verify == b.verify
        };
        match found.iter_mut().find(same) {
            Some(known) => known.routes.push(name.clone()),
            None => found.push(Destination {
                route: Arc::clone(route),
                routes: vec![name.clone()],
            }),
        }
    }
    found
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The thing, a word or two.
    pub what: &'static str,
    /// The facts; foreign text in it is escaped.
    pub detail: String,
    /// What to think of it.
    pub finding: Finding,
}

/// What to think of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is as the service needs it.
    Fine,
    /// The service can live with it; a person should know.
    Note,
    /// The service could not deliver.
    Failed {
        /// What to do about it.
        advice: String,
    },
}
