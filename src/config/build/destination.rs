//! The destination of a route: its URL together with what is given beside it, and secrets, each
//! from one source. It adds its faults to those found before.

use super::super::fault::Wrong;
use super::super::server::{Place, Security, is_clean};
use super::super::value::Typed;
use super::super::{Secret, Server, keys, secret, tls};
use super::Builder;

impl Builder {
    pub(super) fn server(&mut self, route: &str) -> Option<Server> {
        let name = |leaf: &str| format!("routes.{route}.{leaf}");
        let password = self.secret(&name("password"));
        let missing = password.is_none()
            && !self.settings.has(&name("password"))
            && !self.settings.has(&name("password_file"));
        if missing {
            let found = "neither password nor password_file";
            let way_out = format!(
                "set {}=/run/secrets/ftp; a server that wants none: set {} to an empty text",
                keys::variable(&name("password_file")),
                name("password"),
            );
            let wrong = Wrong::new(found, "one of both", way_out);
            self.settings.fault(&name("password"), wrong);
        }
        if password
            .as_ref()
            .is_some_and(|password| !is_clean(password.reveal()))
        {
            let found = "a password with CR, LF or NUL (not shown)";
            let wrong = Wrong::new(found, "a text of one line", "remove the line break");
            self.settings.fault(&name("password"), wrong);
        }
        let place = match self.settings.get(&name("server")) {
            Some(Typed::Server(place)) => Some(place.clone()),
            _ => None,
        };
        let user = self.user(route, place.as_ref());
        let client_key = self.secret(&name("client_key"));
        let (place, user, password) = (place?, user?, password?);
        let s = &mut self.settings;
        let tls = match place.security {
            Security::Plain => None,
            security => Some(tls::of(s, route, security, client_key, &mut self.roots)?),
        };
        if tls.is_none() && !password.reveal().is_empty() {
            self.warnings.push(format!(
                "{}: plain ftp:// sends the password and the files in clear",
                name("server")
            ));
        }
        Some(Server {
            host: place.host,
            port: place.port,
            user,
            password,
            folder: place.folder,
            tls,
        })
    }

    fn user(&mut self, route: &str, place: Option<&Place>) -> Option<String> {
        let (name, server) = (
            format!("routes.{route}.user"),
            format!("routes.{route}.server"),
        );
        let key = self.settings.text(&name);
        let of_url = place.and_then(|place| place.user.clone());
        let wrong = match (&key, &of_url) {
            (Some(user), _) if user.is_empty() || !is_clean(user) => Wrong::new(
                format!("{user:?}"),
                "a text of one line that is not empty",
                "write the login name",
            ),
            (Some(user), Some(other)) if user != other => Wrong::new(
                format!(
                    "{user:?}, but {other:?} in {server} ({})",
                    self.settings.origin(&server)
                ),
                "one login name",
                "remove one of both",
            ),
            (None, None) if place.is_some() => Wrong::new(
                format!(
                    "no user, neither here nor in {server} ({})",
                    self.settings.origin(&server)
                ),
                "a login name; for anonymous servers: anonymous",
                format!("write ftpes://USER@host/… or set {}", keys::variable(&name)),
            ),
            _ => {
                if let (None, Some(user)) = (&key, &of_url) {
                    let origin = self.settings.origin(&server).to_owned();
                    self.effective.insert(name, (user.clone(), origin));
                }
                return key.or(of_url);
            }
        };
        self.settings.fault(&name, wrong);
        None
    }

    /// A secret from its key or its file; both is a fault, across layers too.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        let from = format!("{name}_file");
        let s = &mut self.settings;
        if s.has(name) && s.has(&from) {
            let found = format!(
                "both {name} ({}) and {from} ({})",
                s.origin(name),
                s.origin(&from)
            );
            s.fault(name, Wrong::new(found, "one of both", "remove one of both"));
            return None;
        }
        if let Some(path) = s.path(&from) {
            let origin = s.origin(&from).to_owned();
            let form = secret::Form::of(name);
            let secret = secret::from_file(&path, form, &from, Some(&origin));
            let secret = secret.map_err(|fault| s.faults.push(fault)).ok()?;
            let origin = format!("{}, named by {origin}", path.display());
            self.effective
                .insert(name.into(), ("(secret)".into(), origin));
            return Some(secret);
        }
        match s.get(name) {
            Some(Typed::Secret(secret)) => Some(secret.clone()),
            _ => None,
        }
    }
}
