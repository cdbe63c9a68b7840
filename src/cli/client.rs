//! Asks a running service over HTTP, as `status`, `incidents` and the demo do. Each question ends
//! within a bound and takes a bounded answer; it goes where the URL says (no proxy, no redirect)
//! and shows the token to nobody else.

mod failure;
mod place;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::de::{DeserializeOwned, IgnoredAny};
use ureq::http::HeaderValue;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::{Agent, Body};

use super::{EXIT_USAGE, complain};
use crate::config::{self, Secret, keys};
use crate::log;
use crate::report::{Incident, Retry, RetryRequest, Status};

pub use failure::{Failure, Kind};

type Answer = ureq::http::Response<Body>;

/// A loopback or local network connects in milliseconds.
const CONNECT: Duration = Duration::from_secs(2);
/// A question as a whole; the service itself gives up after 2 s.
const ANSWER: Duration = Duration::from_secs(5);
/// The service's own bound for sending dead letters again is 35 s.
const CHANGED: Duration = Duration::from_secs(40);
/// The service keeps 1000 incidents; with long file names each is some 10 KB.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A refusal is two sentences.
const REFUSAL_MAX: u64 = 64 * 1024;

/// The arguments that name a running service.
#[derive(Debug, Clone, Args)]
pub struct Service {
    /// Where the service answers: its http.listen. Without it the variable
    /// FTPULSE__HTTP__LISTEN tells, else it is http://127.0.0.1:9188.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file that holds the service's http.token. Without it the variables
    /// FTPULSE__HTTP__TOKEN and FTPULSE__HTTP__TOKEN_FILE may give it to a service on loopback.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Service {
    /// A client of that service; what is wrong with the arguments goes to standard error.
    ///
    /// # Errors
    /// The exit code of wrong usage.
    pub fn client(&self) -> Result<Client, ExitCode> {
        let variable = |name: &str| std::env::var_os(name);
        let url = self.url.clone().map_or_else(|| usual(variable), Ok);
        let client = url.and_then(|url| place::parse(&url)).and_then(|base| {
            let token = token(self.token_file.as_deref(), |name| {
                // The variables are those of this machine's service: nobody else sees its token.
                place::is_local(&base).then(|| variable(name)).flatten()
            })?;
            Client::new(base, token.as_ref(), ANSWER)
        });
        client.map_err(|why| {
            complain(&why);
            ExitCode::from(EXIT_USAGE)
        })
    }
}

/// Where the service of this machine answers, as its own variable has it.
fn usual(variable: impl Fn(&str) -> Option<OsString>) -> Result<String, String> {
    let name = keys::variable("http.listen");
    let Some(listen) = variable(&name) else {
        return Ok("http://127.0.0.1:9188".to_owned());
    };
    let listen: std::net::SocketAddr = listen
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{name} is no address with a port; repair it, or give --url"))?;
    // Every address of this machine is also its loopback.
    let host = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    Ok(format!(
        "http://{}",
        std::net::SocketAddr::new(host, listen.port())
    ))
}

/// The token, from the argument's file or else from the variables of the service itself.
fn token(
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Secret>, String> {
    let of_file = |name: &str, path: &Path| {
        let secret = config::secret_file(path);
        let secret = secret
            .map_err(|why| format!("{name}: the file {path:?}: {why}; name the file of the token"));
        secret.map(Some)
    };
    if let Some(path) = file {
        return of_file("--token-file", path);
    }
    let name = keys::variable("http.token");
    let name_of_file = format!("{name}_FILE");
    match (variable(&name), variable(&name_of_file)) {
        (None, None) => Ok(None),
        (None, Some(path)) => of_file(&name_of_file, Path::new(&path)),
        (Some(text), None) => match text.into_string() {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(_) => Err(format!("{name} is not UTF-8 text (not shown); repair it")),
        },
        (Some(_), Some(_)) => Err(format!(
            "both {name} and {name_of_file} are set; unset one, or give --token-file"
        )),
    }
}

/// A client of one service.
pub struct Client {
    agent: Agent,
    base: String,
    /// Marked as sensitive: no debug output shows it.
    authorization: Option<HeaderValue>,
    bound: Duration,
}

impl Client {
    fn new(base: String, token: Option<&Secret>, bound: Duration) -> Result<Self, String> {
        let authorization = token.map(authorization).transpose()?;
        Ok(Self {
            agent: agent(bound),
            base,
            authorization,
            bound,
        })
    }

    /// A client of a service in this process that asks for no token.
    #[cfg(feature = "lab")]
    pub fn at(address: std::net::SocketAddr) -> Self {
        Self {
            agent: agent(CONNECT),
            base: format!("http://{address}"),
            authorization: None,
            // A story must not wait for a service on loopback that does not answer.
            bound: CONNECT,
        }
    }

    /// `http://host:port`.
    #[cfg(feature = "lab")]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What the service is doing.
    ///
    /// # Errors
    /// No answer of use.
    pub fn status(&self) -> Result<Status, Failure> {
        self.read("/api/status")
    }

    /// The incidents that are kept.
    ///
    /// # Errors
    /// No answer of use.
    pub fn incidents(&self) -> Result<Vec<Incident>, Failure> {
        self.read("/api/incidents")
    }

    /// One incident.
    ///
    /// # Errors
    /// No answer of use; `NotFound`: it is not kept.
    pub fn incident(&self, id: u64) -> Result<Incident, Failure> {
        self.read(&format!("/api/incidents/{id}"))
    }

    /// Has dead letters sent again; answers what became of each, and the document itself.
    ///
    /// # Errors
    /// No answer of use; `NotFound`: there is no such route.
    pub fn retry(&self, request: &RetryRequest) -> Result<(Retry, String), Failure> {
        const PATH: &str = "/api/retry";
        let failed = |e: ureq::Error| Failure::of(&e, self.place(), CHANGED, BYTES_MAX);
        let sent = serde_json::to_string(request).map_err(|e| self.unreadable(&e, PATH))?;
        let mut request = agent(CHANGED).post(format!("{}{PATH}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.header(CONTENT_TYPE, "application/json");
        let body = self.body(request.send(sent).map_err(failed)?, PATH, CHANGED)?;
        let done = serde_json::from_str(&body).map_err(|e| self.unreadable(&e, PATH))?;
        Ok((done, one_line(&body)))
    }

    /// A JSON document as the service sends it, as one line with its end. What could act on the
    /// reader's terminal is escaped, which changes no value.
    ///
    /// # Errors
    /// No answer of use.
    pub fn document(&self, path: &str) -> Result<String, Failure> {
        let body = self.get(path)?;
        serde_json::from_str::<IgnoredAny>(&body).map_err(|e| self.unreadable(&e, path))?;
        Ok(one_line(&body))
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let body = self.get(path)?;
        serde_json::from_str(&body).map_err(|e| self.unreadable(&e, path))
    }

    fn get(&self, path: &str) -> Result<String, Failure> {
        let failed = |e: ureq::Error| Failure::of(&e, self.place(), self.bound, BYTES_MAX);
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.body(request.call().map_err(failed)?, path, self.bound)
    }

    /// The body of an answer, or why it is none.
    fn body(&self, answer: Answer, path: &str, bound: Duration) -> Result<String, Failure> {
        let failed = |e: ureq::Error| Failure::of(&e, self.place(), bound, BYTES_MAX);
        let (head, mut body) = answer.into_parts();
        if head.status.is_success() {
            return text(&mut body, BYTES_MAX).map_err(failed);
        }
        // The status says enough where the reason cannot be read.
        let said = text(&mut body, REFUSAL_MAX).unwrap_or_default();
        let status = head.status.as_u16();
        let token = self.authorization.is_some();
        Err(Failure::refused(status, &said, self.place(), path, token))
    }

    fn unreadable(&self, error: &serde_json::Error, path: &str) -> Failure {
        Failure::unreadable(error, self.place(), path)
    }

    fn place(&self) -> &str {
        self.base.strip_prefix("http://").unwrap_or(&self.base)
    }
}

fn agent(bound: Duration) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // One question a second at most; a kept connection could be one that was just closed.
        .max_idle_connections(0)
        .timeout_connect(Some(bound.min(CONNECT)))
        .timeout_global(Some(bound));
    config.build().new_agent()
}

/// The header that carries the token.
fn authorization(token: &Secret) -> Result<HeaderValue, String> {
    let text = token.reveal();
    let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let header = HeaderValue::from_str(&format!("Bearer {text}"));
    match header {
        Ok(mut header) if visible => {
            header.set_sensitive(true);
            Ok(header)
        }
        _ => Err(
            "the token is empty or holds other signs than visible ASCII (not shown); give \
                  the one of the service's http.token"
                .to_owned(),
        ),
    }
}

fn text(body: &mut Body, bytes_max: u64) -> Result<String, ureq::Error> {
    let limited = body.with_config().limit(bytes_max).lossy_utf8(true);
    limited.read_to_string()
}

/// Valid JSON on one line: line breaks can only stand between its values.
fn one_line(json: &str) -> String {
    log::sealed(&json.trim().replace(['\n', '\r', '\t'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        token(None, variable).map(|token| token.map(|token| token.reveal().to_owned()))
    }

    #[test]
    fn the_place_comes_from_the_services_own_variable() {
        let of = |listen: Option<&str>| usual(|_| listen.map(OsString::from));
        assert_eq!(of(None).unwrap(), "http://127.0.0.1:9188");
        assert_eq!(of(Some("127.0.0.1:19")).unwrap(), "http://127.0.0.1:19");
        assert_eq!(of(Some("0.0.0.0:80")).unwrap(), "http://127.0.0.1:80");
        assert_eq!(of(Some("[::]:80")).unwrap(), "http://[::1]:80");
        assert!(
            of(Some("nowhere"))
                .unwrap_err()
                .contains("FTPULSE__HTTP__LISTEN")
        );
    }

    #[test]
    fn the_token_comes_from_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(
            of(&[("FTPULSE__HTTP__TOKEN", "t")]),
            Ok(Some("t".to_owned()))
        );
        assert_eq!(
            of(&[("FTPULSE__HTTP__TOKEN_FILE", path)]),
            Ok(Some("s3cret".to_owned()))
        );
        let both = [
            ("FTPULSE__HTTP__TOKEN", "t0p"),
            ("FTPULSE__HTTP__TOKEN_FILE", path),
        ];
        let refusal = of(&both).unwrap_err();
        assert!(refusal.contains("both") && !refusal.contains("t0p"));
        // The argument wins over both.
        let token = token(Some(Path::new(path)), |_| Some("x".into())).unwrap();
        assert_eq!(token.unwrap().reveal(), "s3cret");
        let gone = of(&[("FTPULSE__HTTP__TOKEN_FILE", "/nowhere")]).unwrap_err();
        assert!(gone.contains("/nowhere") && gone.contains("FTPULSE__HTTP__TOKEN_FILE"));
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_refused_unseen() {
        for text in ["", "two words", "t\u{fc}r", "a\r\nb"] {
            let made = Client::new("http://h:1".into(), Some(&Secret::new(text)), ANSWER);
            let refusal = made.err().unwrap();
            assert!(refusal.contains("not shown"), "{refusal}");
        }
    }

    #[test]
    fn a_document_becomes_one_line_of_the_same_value() {
        let json = "{\n\t\"a\": \"x\u{202e}y\\n\",\r\n \"b\": 0.10}\n";
        let line = one_line(json);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1);
        assert!(line.contains("x\\u202ey\\n") && line.contains("0.10"));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(json));
    }
}
