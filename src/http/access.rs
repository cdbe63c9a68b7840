//! Who may see what (CONTRACT: "HTTP"). File names can be confidential, so off loopback only
//! `/metrics`, `/healthz` and `/readyz` answer without a token. On loopback without a token the
//! danger is a web page that rebinds its name to this machine: `Host` must be an address or
//! `localhost`. A right token needs no `Host` check, since no browser sends it for a web page.
//! The status page itself holds no data and asks for the token in a form: where there is a token
//! it is served without, by any name, or nobody could ever type it in.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::uri::Authority;
use actix_web::http::{StatusCode, Version, header};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use subtle::ConstantTimeEq;

use super::answer::Refusal;
use super::{State, page};
use crate::config::Secret;

/// The paths that never need a token: they name no file.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// The paths that change something: never without the token, wherever the service listens.
const CHANGING: [&str; 2] = [super::retry::PATH, super::reload::PATH];

/// The rules that follow from the configuration.
#[derive(Debug)]
pub(super) struct Access {
    loopback: bool,
    token: Token,
}

/// The token of `http.token`; another one can be set while the server runs.
#[derive(Debug, Clone, Default)]
pub struct Token(Arc<RwLock<Option<Secret>>>);

impl Token {
    /// This one, or none.
    pub fn new(token: Option<Secret>) -> Self {
        Self(Arc::new(RwLock::new(token)))
    }

    /// From here on it is this one, or none.
    pub fn set(&self, token: Option<Secret>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn get(&self) -> Option<Secret> {
        let token = self.0.read();
        token.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the rules look at.
#[derive(Debug, Clone, Copy, Default)]
struct Request<'a> {
    path: &'a str,
    /// Every host the request names: the `Host` headers and an absolute target's.
    hosts: &'a [&'a str],
    /// Whether the protocol demands a `Host` (HTTP/1.1 does, the 1.0 of simple probes does not).
    host_due: bool,
    authorization: Option<&'a str>,
}

impl Access {
    pub(super) fn new(listen: IpAddr, token: Token) -> Self {
        Self {
            loopback: listen.to_canonical().is_loopback(),
            token,
        }
    }

    /// Whether status and incidents are shown to nobody.
    pub(super) fn closed(&self) -> bool {
        !self.loopback && self.token.get().is_none()
    }

    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        if self.token_matches(request.authorization) {
            return Ok(());
        }
        let token = self.token.get();
        if token.is_some() && page::is_part(request.path) {
            return Ok(());
        }
        let open = OPEN.contains(&request.path);
        if self.loopback || !open {
            judge_host(request)?;
        }
        if CHANGING.contains(&request.path) {
            return Err(self.no_change());
        }
        match token {
            _ if open => Ok(()),
            Some(_) => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                match request.authorization {
                    Some(_) => "the token is not the one of http.token",
                    None => "this page needs the token",
                },
                "send it as `Authorization: Bearer TOKEN`; `ftpulse status` takes --token-file",
            )),
            None if self.loopback => Ok(()),
            None => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "file names can be confidential: off loopback this page is closed without a token",
                "set http.token (or http.token_file), or listen on 127.0.0.1; /metrics, /healthz \
                 and /readyz stay open",
            )),
        }
    }

    fn no_change(&self) -> Refusal {
        match self.token.get() {
            Some(_) => Refusal::new(
                StatusCode::FORBIDDEN,
                "this changes something and needs the token of http.token",
                "send it as `Authorization: Bearer TOKEN`; `ftpulse retry` takes --token-file",
            ),
            None => Refusal::new(
                StatusCode::FORBIDDEN,
                "this changes something and needs a token, and the service has none",
                "set http.token (or http.token_file), reload or restart, and send it as `Authorization: \
                 Bearer TOKEN`",
            ),
        }
    }

    /// Compares in constant time; only the length of the token can be learnt.
    fn token_matches(&self, authorization: Option<&str>) -> bool {
        let (Some(token), Some(sent)) = (self.token.get(), authorization) else {
            return false;
        };
        let Some((scheme, sent)) = sent.split_once(' ') else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer")
            && !token.reveal().is_empty()
            && bool::from(sent.trim().as_bytes().ct_eq(token.reveal().as_bytes()))
    }
}

/// The host of `http.listen` is an address literal and so among the allowed ones.
fn judge_host(request: &Request) -> Result<(), Refusal> {
    if request.hosts.is_empty() && request.host_due {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "the request has no Host header",
            "HTTP/1.1 demands one: send the address that you connect to",
        ));
    }
    match request.hosts.iter().find(|host| !is_allowed(host)) {
        None => Ok(()),
        Some(host) => Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("the host `{}` is not served here", crate::log::escape(host)),
            "a web page could point its own name at this machine (DNS rebinding): use an IP \
             address or localhost in the URL, or send the token of http.token",
        )),
    }
}

fn is_allowed(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if host.contains('@') {
        return false;
    }
    let name = authority.host();
    let bare = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

/// Lets a request through or answers it with the refusal.
pub(super) async fn guard(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut hosts = Vec::new();
    for value in request.headers().get_all(header::HOST) {
        // An unreadable one is not allowed; an empty string is not either.
        hosts.push(value.to_str().unwrap_or(""));
    }
    if let Some(authority) = request.uri().authority() {
        hosts.push(authority.as_str());
    }
    let verdict = state.access.judge(&Request {
        path: request.path(),
        hosts: &hosts,
        host_due: request.version() > Version::HTTP_10,
        authorization: request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()),
    });
    match verdict {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(refusal) => Ok(request.into_response(refusal.response())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
    const ANY: [u8; 4] = [0, 0, 0, 0];

    fn access(listen: [u8; 4], token: Option<&str>) -> Access {
        Access::new(listen.into(), Token::new(token.map(Secret::new)))
    }

    fn status(access: &Access, path: &str, host: &str, authorization: Option<&str>) -> u16 {
        let request = Request {
            path,
            hosts: &[host],
            host_due: true,
            authorization,
        };
        access
            .judge(&request)
            .map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn addresses_and_localhost_are_hosts_of_this_machine_and_names_are_not() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9188",
            "192.0.2.7:80",
            "[::1]:9188",
            "[::1]",
            "localhost",
            "LocalHost:1",
        ] {
            assert!(is_allowed(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "127.1",
            "0x7f000001",
            "[::1",
            "::1",
            "a b",
            "127.0.0.1/evil",
        ] {
            assert!(!is_allowed(host), "{host}");
        }
    }

    #[test]
    fn on_loopback_without_a_token_everything_answers_but_only_to_a_local_host() {
        let access = access(LOOPBACK, None);
        for path in ["/", "/metrics", "/healthz", "/api/status", "/nothing"] {
            assert_eq!(status(&access, path, "127.0.0.1:9188", None), 200, "{path}");
            assert_eq!(status(&access, path, "evil.example", None), 421, "{path}");
        }
    }

    #[test]
    fn off_loopback_without_a_token_only_metrics_and_probes_answer_to_any_host() {
        let access = access(ANY, None);
        assert!(access.closed());
        for path in OPEN {
            assert_eq!(status(&access, path, "ftpulse:9188", None), 200, "{path}");
        }
        for path in [
            "/",
            "/page/page.js",
            "/api/status",
            "/metrics/",
            "/metrics/../api/status",
            "/nothing",
        ] {
            assert_eq!(
                status(&access, path, "192.0.2.7:9188", Some("Bearer x")),
                403,
                "{path}"
            );
            assert_eq!(status(&access, path, "evil.example", None), 421, "{path}");
        }
    }

    #[test]
    fn a_token_is_demanded_wherever_the_service_listens_and_opens_every_page() {
        for listen in [LOOPBACK, ANY] {
            let access = access(listen, Some("s3cret"));
            assert!(!access.closed());
            for sent in [
                None,
                Some(""),
                Some("Bearer"),
                Some("Bearer "),
                Some("Bearer s3cre"),
                Some("Bearer s3cret2"),
                Some("Basic s3cret"),
            ] {
                assert_eq!(
                    status(&access, "/api/status", "127.0.0.1", sent),
                    401,
                    "{sent:?}"
                );
            }
            for sent in ["Bearer s3cret", "bearer s3cret"] {
                assert_eq!(
                    status(&access, "/api/status", "ftpulse:9188", Some(sent)),
                    200
                );
            }
            assert_eq!(status(&access, "/metrics", "127.0.0.1", None), 200);
        }
        assert_eq!(
            status(
                &access(LOOPBACK, Some("")),
                "/api/status",
                "127.0.0.1",
                Some("Bearer ")
            ),
            401
        );
    }

    #[test]
    fn what_changes_something_needs_the_token_everywhere() {
        for listen in [LOOPBACK, ANY] {
            for (token, sent) in [
                (None, None),
                (None, Some("Bearer s3cret")),
                (Some("s3cret"), None),
                (Some("s3cret"), Some("Bearer other")),
            ] {
                let access = access(listen, token);
                for path in CHANGING {
                    assert_eq!(status(&access, path, "127.0.0.1", sent), 403);
                }
            }
            let access = access(listen, Some("s3cret"));
            let sent = Some("Bearer s3cret");
            for path in CHANGING {
                assert_eq!(status(&access, path, "127.0.0.1", sent), 200);
                assert_eq!(status(&access, path, "evil.example", None), 421);
            }
        }
    }

    #[test]
    fn the_page_without_data_is_served_by_any_name_where_it_can_ask_for_a_token() {
        for listen in [LOOPBACK, ANY] {
            let access = access(listen, Some("s3cret"));
            for path in ["/", "/page/page.js"] {
                for host in ["127.0.0.1", "ftpulse.example", "192.0.2.7:9188"] {
                    assert_eq!(status(&access, path, host, None), 200, "{path} {host}");
                    assert_eq!(status(&access, path, host, Some("Bearer x")), 200);
                }
            }
            for path in [
                "/page",
                "/page/",
                "/page/x",
                "//",
                "/index.html",
                "/nothing",
            ] {
                assert_eq!(status(&access, path, "127.0.0.1", None), 401, "{path}");
            }
        }
    }

    #[test]
    fn another_token_holds_at_once() {
        let token = Token::new(Some(Secret::new("old")));
        let access = Access::new(LOOPBACK.into(), token.clone());
        let with = |sent| status(&access, "/api/status", "127.0.0.1", Some(sent));
        assert_eq!((with("Bearer old"), with("Bearer new")), (200, 401));
        token.set(Some(Secret::new("new")));
        assert_eq!((with("Bearer old"), with("Bearer new")), (401, 200));
    }

    #[test]
    fn a_missing_host_passes_only_where_the_protocol_has_none() {
        let access = access(LOOPBACK, None);
        let request = Request {
            path: "/healthz",
            ..Request::default()
        };
        assert!(access.judge(&request).is_ok());
        let refusal = access
            .judge(&Request {
                host_due: true,
                ..request
            })
            .unwrap_err();
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
    }
}
