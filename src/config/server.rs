//! The URL of a destination, read as RFC 1738 section 3.2.2 has it: the path is relative to
//! the login folder, `%2F` at its start makes it absolute. It refuses passwords in the URL,
//! and what it would have to guess at. The scheme alone says whether TLS is spoken. No refusal
//! quotes a password.

use super::fault::Wrong;
use percent_encoding::percent_decode_str;
use std::cell::RefCell;
use url::{Host, SyntaxViolation, Url};

/// Where a URL points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Host name or address literal, without brackets.
    pub host: String,
    pub port: u16,
    pub security: Security,
    /// Decoded; none if the URL names no user.
    pub user: Option<String>,
    /// Decoded; empty for the login folder.
    pub folder: String,
}

/// What protects the control connection, and with it the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// `ftp://`: nothing.
    Plain,
    /// `ftpes://`: TLS, asked for by AUTH TLS (RFC 4217).
    Explicit,
    /// `ftps://`: TLS from the first byte on.
    Implicit,
}

pub(super) const ALLOWED: &str = "a URL ftpes://user@host:port/folder (explicit TLS), ftps:// \
    (implicit TLS) or ftp:// (plain), without a password";

/// Reads the URL of a destination.
pub(super) fn parse(text: &str) -> Result<Place, Wrong> {
    let refuse = |why: &str, way_out: &str| {
        let found = format!("{:?}: {why}", redact(text));
        Err(Wrong::new(found, ALLOWED, way_out))
    };
    let security = match security(text) {
        Ok(security) => security,
        Err((why, way_out)) => return refuse(why, way_out),
    };
    let seen = RefCell::new(Vec::new());
    let note = |violation| seen.borrow_mut().push(violation);
    let url = match Url::options()
        .syntax_violation_callback(Some(&note))
        .parse(&as_ftp(text))
    {
        Ok(url) => url,
        Err(error) => return refuse(&error.to_string(), "repair the URL"),
    };
    if url.password().is_some() {
        let way_out = "take the password out of the URL and give it as password_file or password \
                       (put, get, list: by FTPULSE_PASSWORD_FILE, FTPULSE_PASSWORD, or when asked)";
        return refuse("it holds a password", way_out);
    }
    if let Some((why, way_out)) = seen.borrow().iter().find_map(violation) {
        return refuse(why, way_out);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(
            "a path cannot hold ? or # as they are",
            "write %3F for ? and %23 for #",
        );
    }
    let host = match url.host() {
        Some(Host::Ipv4(address)) if !text.contains(&address.to_string()) => {
            let way_out = "write the address as four decimal numbers";
            return refuse(&format!("its host would be read as {address}"), way_out);
        }
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        _ => return refuse("it names no host", "name the host"),
    };
    let port = url.port().or_else(|| written_port(text));
    let port = port.unwrap_or(match security {
        Security::Plain | Security::Explicit => 21,
        Security::Implicit => 990,
    });
    if port == 0 {
        return refuse(
            "port 0 cannot be connected to",
            "name another port, or none for the usual one",
        );
    }
    let Some(user) = decode(url.username()) else {
        return refuse(
            "its user is no clean UTF-8 text",
            "remove CR, LF and NUL, write UTF-8",
        );
    };
    let user = (!user.is_empty()).then_some(user);
    match folder(raw_path(text)) {
        Ok(folder) => Ok(Place {
            host,
            port,
            security,
            user,
            folder,
        }),
        Err((why, way_out)) => refuse(why, way_out),
    }
}

type Refusal = (&'static str, &'static str);

fn security(text: &str) -> Result<Security, Refusal> {
    let Some((scheme, _)) = text.split_once("://") else {
        return Err(("it has no scheme", "write ftpes:// or ftp:// before it"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "ftp" => Ok(Security::Plain),
        "ftpes" => Ok(Security::Explicit),
        "ftps" => Ok(Security::Implicit),
        _ => Err((
            "this is no FTP server",
            "write ftpes://, ftps:// or ftp://user@host/folder",
        )),
    }
}

/// The text with the scheme whose rules hold for all: the parser does not know the others.
fn as_ftp(text: &str) -> String {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    format!("ftp://{rest}")
}

/// The port as it was written: the parser leaves out the one that is usual for `ftp://`.
fn written_port(text: &str) -> Option<u16> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

/// What the URL parser would silently repair, and this program refuses to guess at.
fn violation(violation: &SyntaxViolation) -> Option<Refusal> {
    match violation {
        SyntaxViolation::EmbeddedCredentials => None,
        SyntaxViolation::Backslash => Some(("it holds a backslash", "write / or %5C")),
        SyntaxViolation::PercentDecode => Some((
            "a % is not followed by two hex digits",
            "write %25 for the sign %",
        )),
        SyntaxViolation::UnencodedAtSign => {
            Some(("its user holds an @", "write %40 for the @ of the user"))
        }
        SyntaxViolation::C0SpaceIgnored | SyntaxViolation::TabOrNewlineIgnored => {
            Some(("it holds white space", "remove it, or write it such as %20"))
        }
        SyntaxViolation::NonUrlCodePoint => Some((
            "it holds a sign that URLs do not have",
            "percent-encode it, such as %20",
        )),
        _ => Some(("it is not well-formed", "write ftp://user@host:port/folder")),
    }
}

/// The path as it was written; the parser's own is already resolved at its dots.
fn raw_path(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

fn folder(raw: &str) -> Result<String, Refusal> {
    if raw.starts_with('/') || raw.contains("//") {
        return Err((
            "an empty part in its path",
            "write %2F at the path's start for an absolute folder, else a single /",
        ));
    }
    // As in ftp://user:21/secret@host: it could be the end of a password that holds a slash.
    if raw.contains('@') {
        return Err((
            "its path holds an @",
            "write %40 for it, and no password in the URL",
        ));
    }
    if raw.to_ascii_lowercase().contains(";type=") {
        return Err(("transfers are always binary", "remove ;type= from its end"));
    }
    let raw = raw.strip_suffix('/').unwrap_or(raw);
    let Some(decoded) = decode(raw) else {
        return Err((
            "its folder is no clean UTF-8 text",
            "remove CR, LF and NUL, write UTF-8",
        ));
    };
    if decoded.contains("//") {
        return Err(("an empty part in its path", "write %2F once, at the start"));
    }
    if decoded.split('/').any(|part| part == "." || part == "..") {
        return Err(("its path holds . or ..", "write the folder itself"));
    }
    if decoded.len() > 1 && decoded.ends_with('/') {
        return Err(("its path ends with %2F", "remove it"));
    }
    Ok(decoded)
}

/// Percent-decoded UTF-8 that can stand in an FTP command: free of CR, LF and NUL.
fn decode(raw: &str) -> Option<String> {
    let text = percent_decode_str(raw).decode_utf8().ok()?;
    is_clean(&text).then(|| text.into_owned())
}

/// Whether a text can stand in an FTP command without ending it.
pub(super) fn is_clean(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

/// The text with everything that could be a password left out, whatever shape it is in.
pub(super) fn redact(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (head, rest) = text.split_at(start);
    match (rest.find(':'), rest.rfind('@')) {
        (Some(colon), Some(at)) if colon < at => {
            format!("{head}{}:(secret){}", &rest[..colon], &rest[at..])
        }
        _ => text.into(),
    }
}
