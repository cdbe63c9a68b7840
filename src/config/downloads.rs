//! Routes with `direction = "get"`: what only they have, what they cannot have, and what `archive`
//! means for them (a folder on the server).

use std::path::Path;

use super::fault::Wrong;
use super::model::Get;
use super::settings::{DEFAULT, Settings};
use super::value::Typed;

/// Whether the route downloads.
fn is_get(s: &Settings, route: &str) -> bool {
    s.choice(&format!("routes.{route}.direction")) == "get"
}

/// What only a route that downloads has.
pub(super) fn of(s: &Settings, route: &str) -> Option<Get> {
    is_get(s, route).then(|| Get {
        poll: s.duration(&format!("routes.{route}.poll")),
    })
}

/// The keys of a route that name folders of this machine beside its spool.
pub(super) fn local_folders(s: &Settings, route: &str) -> &'static [&'static str] {
    if is_get(s, route) {
        &["dead_letter"]
    } else {
        &["archive", "dead_letter"]
    }
}

/// Keys that are set and do nothing, each with the reason.
pub(super) fn idle(s: &Settings) -> Vec<(String, String)> {
    let mut idle = Vec::new();
    for route in s.routes.keys() {
        let mut told = |leaf: &str, why: &str| {
            let name = format!("routes.{route}.{leaf}");
            if s.has(&name) && s.origin(&name) != DEFAULT {
                idle.push((name, why.to_owned()));
            }
        };
        if is_get(s, route) {
            let why = "a download that fails is tried again for as long as the server lists it";
            told("dead_letter", why);
        } else {
            told("poll", "the route's direction is \"put\"");
        }
    }
    idle
}

/// What a route that downloads cannot have, and where its archive may be.
pub(super) fn check(settings: &mut Settings, route: &str) {
    if !is_get(settings, route) {
        return;
    }
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    for leaf in ["ready_suffix", "publish", "temp_pattern", "remote_marker"] {
        let name = name(leaf);
        let set = settings.has(&name) && settings.origin(&name) != DEFAULT;
        let harmless = leaf == "publish" && settings.choice(&name) == "rename";
        if set && !harmless && settings.sound(&[&name]) {
            let found = format!("set, but routes.{route}.direction is \"get\"");
            let allowed = "nothing for a route that downloads";
            let wrong = Wrong::new(found, allowed, "remove it: it is about uploads only");
            settings.fault(&name, wrong);
        }
    }
    let archive = settings.path(&name("archive"));
    let place = match settings.get(&name("server")) {
        Some(Typed::Server(place)) => place.folder.clone(),
        _ => return,
    };
    if let Some(archive) = archive
        && place.starts_with('/')
        && Path::new(&place) == archive
    {
        let found = format!("{archive:?}, which is also the remote folder");
        let allowed = "another folder on the server, inside the remote one (it is left out of it) \
                       or beside it";
        let wrong = Wrong::new(found, allowed, "name another folder");
        settings.fault(&name("archive"), wrong);
    }
}
