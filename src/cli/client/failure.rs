//! Why the service's answer is none: one sentence with the way out. What the service itself said
//! is quoted escaped and cut.

use std::io::ErrorKind;
use std::time::Duration;

use serde::Deserialize;
use ureq::Error;

use crate::log;

/// No answer of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// What to tell.
    pub text: String,
}

/// What to make of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service may answer the next time.
    Silent,
    /// It does not know what was asked for.
    NotFound,
    /// It will say so again.
    Final,
}

impl Failure {
    /// No connection, or one without an answer.
    pub(super) fn of(error: &Error, place: &str, bound: Duration, bytes_max: u64) -> Self {
        let text = match error {
            Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => format!(
                "nobody listens on {place}: start the service, or name its http.listen with --url"
            ),
            Error::Io(e) if e.kind() == ErrorKind::UnexpectedEof => format!(
                "{place} closes the connection without an answer: is it the http.listen of ftpulse?"
            ),
            Error::Timeout(_) => format!(
                "{place} does not answer within {} s: see whether the service runs and the \
                 address is reached from here",
                bound.as_secs_f64()
            ),
            Error::HostNotFound => {
                format!("the host of {place} is not known: name another with --url")
            }
            Error::BodyExceedsLimit(_) => {
                return Self {
                    kind: Kind::Final,
                    text: format!(
                        "{place} sends more than {bytes_max} bytes: is it the http.listen of \
                         ftpulse?"
                    ),
                };
            }
            Error::Protocol(_) | Error::Http(_) | Error::LargeResponseHeader(..) => format!(
                "{place} does not answer in HTTP: is it the http.listen of ftpulse, and not \
                 another port?"
            ),
            Error::Io(e) => format!(
                "no answer from {place}: {}; see whether the service runs and --url names it",
                log::chain(e)
            ),
            other => format!(
                "no answer from {place}: {}; see whether the service runs and --url names it",
                log::chain(other)
            ),
        };
        Self {
            kind: Kind::Silent,
            text,
        }
    }

    /// An answer that is a refusal.
    pub(super) fn refused(status: u16, body: &str, place: &str, path: &str, token: bool) -> Self {
        #[derive(Deserialize)]
        struct Said {
            error: String,
        }
        let said = serde_json::from_str::<Said>(body).ok();
        let said = said.map(|said| log::escape_reply(said.error.as_bytes()));
        let why = said.as_deref().unwrap_or("it does not say why");
        let text = match (status, token) {
            (401, false) => format!(
                "{place} asks for its token (401): name the file that holds it with --token-file"
            ),
            (401, true) => format!(
                "{place} does not take this token (401): compare it with the service's http.token"
            ),
            (403, _) if path == "/api/retry" => format!(
                "{place} does not do this (403): {why}; set http.token for the service if it has \
                 none, and give it here with --token-file"
            ),
            (403, _) => format!(
                "{place} does not show this (403): {why}; set http.token for the service and give \
                 it here with --token-file, or ask at the service's own loopback"
            ),
            (404, _) if said.is_some() => why.to_owned(),
            (404, _) => format!(
                "{place} has no page {path} (404): is it the http.listen of ftpulse, and not \
                 another program's?"
            ),
            (421, _) => format!(
                "{place} does not answer to this host name (421): name its IP address or \
                 localhost with --url, or give its token with --token-file"
            ),
            (503, _) => format!(
                "{place} cannot answer now (503): {why}; try again in a few seconds, /healthz \
                 tells whether the service turns"
            ),
            (300..=399, _) => format!(
                "{place} points elsewhere ({status}), which is not followed: name the service \
                 itself with --url"
            ),
            _ => format!("{place} answers {status}: {why}; is it the http.listen of ftpulse?"),
        };
        let kind = match status {
            404 if said.is_some() => Kind::NotFound,
            500.. => Kind::Silent,
            _ => Kind::Final,
        };
        Self { kind, text }
    }

    /// An answer that is not the document.
    pub(super) fn unreadable(error: &serde_json::Error, place: &str, path: &str) -> Self {
        let error = error.to_string();
        let what = log::escape_reply(error.as_bytes());
        Self {
            kind: Kind::Final,
            text: format!(
                "what {place} sends as {path} cannot be read ({what}): is it the http.listen of \
                 ftpulse, of this version?"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str, token: bool) -> Failure {
        Failure::refused(status, body, "h:1", "/api/status", token)
    }

    #[test]
    fn each_refusal_is_one_sentence_with_its_way_out() {
        let said = r#"{"error":"the daemon did not answer","way_out":"wait"}"#;
        let rows = [
            (401, "", false, Kind::Final, "--token-file"),
            (401, "", true, Kind::Final, "http.token"),
            (403, said, false, Kind::Final, "set http.token"),
            (404, "<html>", false, Kind::Final, "another program's"),
            (404, said, false, Kind::NotFound, "did not answer"),
            (421, "", false, Kind::Final, "IP address"),
            (503, said, false, Kind::Silent, "did not answer; try again"),
            (302, "", false, Kind::Final, "not followed"),
            (418, "", false, Kind::Final, "418"),
        ];
        for (status, body, token, kind, text) in rows {
            let failure = refused(status, body, token);
            assert_eq!(failure.kind, kind, "{status}");
            assert!(failure.text.contains(text), "{status}: {}", failure.text);
            assert!(!failure.text.contains('\n'));
        }
    }

    #[test]
    fn what_a_service_says_is_escaped() {
        let text = refused(503, r#"{"error":"\u001b[2J\nevil"}"#, false).text;
        assert!(text.contains(r"\x1b[2J\nevil"), "{text}");
    }
}
