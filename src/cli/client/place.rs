//! Where the service is, from `--url`. It refuses what it would have to guess at, drop or send on;
//! no refusal quotes what could be a password.

use url::{Host, Url};

use crate::log;

/// Reads the URL of a service; gives it back as `http://host:port`.
///
/// # Errors
/// What is wrong with it and the way out.
pub fn parse(text: &str) -> Result<String, String> {
    let refuse = |why: &str, way_out: &str| Err(format!("{}: {why}; {way_out}", shown(text)));
    let Some((scheme, _)) = text.split_once("://") else {
        return refuse("it has no scheme", "write http:// before it");
    };
    if scheme.eq_ignore_ascii_case("https") {
        return refuse(
            "the service does not speak TLS",
            "write http://, through a tunnel (ssh -L) if the way is not safe",
        );
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return refuse(
            "the service speaks HTTP",
            "write http://, host and port of its http.listen",
        );
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return refuse(&error.to_string(), "write it such as http://127.0.0.1:9188"),
    };
    if text.contains('@') {
        return refuse(
            "it holds a user or a password",
            "take them out; the service asks for its token, which --token-file gives",
        );
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return refuse(
            "it goes on after host and port",
            "leave that away; the command itself knows the pages",
        );
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return refuse("it names no host", "name the host of http.listen");
    };
    if port == 0 {
        return refuse(
            "port 0 cannot be connected to",
            "name the port of http.listen",
        );
    }
    Ok(format!("http://{host}:{port}"))
}

/// Whether a place that `parse` gave is on this machine's loopback.
pub fn is_local(base: &str) -> bool {
    let host = Url::parse(base).ok();
    match host.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The URL, unless a part of it could be a secret.
fn shown(text: &str) -> String {
    if text.contains('@') {
        return "the URL of --url".to_owned();
    }
    // A query such as `?token=…` is left out, whatever else is wrong.
    let end = text.find(['?', '#']).unwrap_or(text.len());
    format!("--url {}", log::escape(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for local in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "http://192.0.2.1:1",
            "http://localhost.example:1",
            "http://h:1",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn host_and_port_are_taken_as_they_are() {
        let urls = [
            ("http://127.0.0.1:9188", "http://127.0.0.1:9188"),
            ("HTTP://[::1]:9188/", "http://[::1]:9188"),
            ("http://ftpulse", "http://ftpulse:80"),
        ];
        for (text, base) in urls {
            assert_eq!(parse(text).as_deref(), Ok(base), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_the_way_out_and_without_a_secret() {
        let urls = [
            ("127.0.0.1:9188", "no scheme"),
            ("https://127.0.0.1:9188", "TLS"),
            ("ftp://127.0.0.1", "speaks HTTP"),
            ("http://", "empty host"),
            ("http://h:99999", "invalid port"),
            ("http://h:0", "port 0"),
            ("http://h/api/status", "goes on after"),
            ("http://h/?token=s3cret", "goes on after"),
            ("http://h/#s3cret", "goes on after"),
            ("http://user@h", "user or a password"),
            ("http://user:s3cret@h:9188/", "user or a password"),
            ("http://user:s3cret@h:x", "invalid port"),
            ("user:s3cret@h", "no scheme"),
        ];
        for (text, why) in urls {
            let refusal = parse(text).unwrap_err();
            assert!(
                refusal.contains(why) && refusal.contains("; "),
                "{text}: {refusal}"
            );
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
    }
}
