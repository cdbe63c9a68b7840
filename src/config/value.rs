//! One value: from a text (environment, defaults) or a TOML value to a checked `Typed` one.
//! It refuses bare numbers where a unit belongs, and whatever lies outside the table's bounds;
//! it never clamps. What it reports about a secret never holds the secret.

use super::fault::Wrong;
use super::keys::{Key, Kind};
use super::model::Secret;
use super::server::{self, Place};
use super::suggest;
use ::config::{Value, ValueKind};
use bytesize::ByteSize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};
use std::time::Duration;

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Typed {
    None,
    Duration(Duration),
    Whole(i64),
    Share(f64),
    Size(u64),
    Bool(bool),
    Choice(&'static str),
    Path(PathBuf),
    Secret(Secret),
    Text(String),
    Patterns(Vec<String>),
    Address(SocketAddr),
    Ip(IpAddr),
    Ports(RangeInclusive<u16>),
    Server(Place),
}

/// A text as the TOML value that its setting expects; unfit text stays text, and is refused later.
pub(super) fn from_text(kind: Kind, text: &str) -> ValueKind {
    let parsed = match kind {
        Kind::Whole(..) => text.parse().ok().map(ValueKind::I64),
        Kind::Share => text.parse().ok().map(ValueKind::Float),
        Kind::Bool => text.parse().ok().map(ValueKind::Boolean),
        Kind::Patterns => {
            let items = split_list(text)
                .into_iter()
                .map(|item| Value::new(None, item));
            Some(ValueKind::Array(items.collect()))
        }
        _ => None,
    };
    parsed.unwrap_or_else(|| ValueKind::String(text.into()))
}

/// Splits at commas, but not inside `{a,b}` or `[a,b]` of a pattern.
fn split_list(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let mut depth = 0_usize;
    let parts = text.split(|c: char| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(|part| part.trim().to_owned()).collect()
}

/// Checks `value` against what `key` allows.
pub(super) fn read(key: &Key, value: &ValueKind) -> Result<Typed, Wrong> {
    let typed = match (key.kind, value) {
        (Kind::DurationOrNone(..) | Kind::SizeOrNone(..), ValueKind::String(text))
            if text == "none" =>
        {
            Some(Typed::None)
        }
        (Kind::Duration(min, max) | Kind::DurationOrNone(min, max), ValueKind::String(text)) => {
            let within = |d: &Duration| duration(min) <= Some(*d) && Some(*d) <= duration(max);
            duration(text).filter(within).map(Typed::Duration)
        }
        (Kind::Size(min, max) | Kind::SizeOrNone(min, max), ValueKind::String(text)) => {
            let within = |s: &u64| size(min) <= Some(*s) && Some(*s) <= size(max);
            size(text).filter(within).map(Typed::Size)
        }
        (Kind::Whole(min, max), ValueKind::I64(number)) => (min..=max)
            .contains(number)
            .then_some(Typed::Whole(*number)),
        (Kind::Share, ValueKind::Float(share)) => {
            (0.0..=1.0).contains(share).then_some(Typed::Share(*share))
        }
        (Kind::Share, ValueKind::I64(0)) => Some(Typed::Share(0.0)),
        (Kind::Share, ValueKind::I64(1)) => Some(Typed::Share(1.0)),
        (Kind::Bool, ValueKind::Boolean(value)) => Some(Typed::Bool(*value)),
        (Kind::Choice(options), ValueKind::String(text)) => return choice(key, options, text),
        (Kind::Path | Kind::SecretFile, ValueKind::String(text)) => path(text).map(Typed::Path),
        (Kind::Secret, ValueKind::String(text)) => Some(Typed::Secret(Secret::new(text))),
        (Kind::Text, ValueKind::String(text)) => Some(Typed::Text(text.clone())),
        (Kind::Patterns, ValueKind::Array(items)) => return patterns(key, items),
        (Kind::Address, ValueKind::String(text)) => text.parse().ok().map(Typed::Address),
        (Kind::Ip, ValueKind::String(text)) => ip(text).map(Typed::Ip),
        (Kind::Ports, ValueKind::String(text)) => ports(text).map(Typed::Ports),
        (Kind::Server, ValueKind::String(text)) => return server::parse(text).map(Typed::Server),
        _ => None,
    };
    typed.ok_or_else(|| Wrong::new(show(key, value), allowed(key), way_out(key, value)))
}

/// A duration with its unit; `None` for anything else.
pub(super) fn duration(text: &str) -> Option<Duration> {
    // Bare digits include the "0" that humantime lets pass. The longest sensible text is shorter
    // than 25 bytes; sums beyond u64::MAX seconds need more, and humantime panics on some of them.
    let bare = text.bytes().all(|b| b.is_ascii_digit());
    if bare || text.len() > 24 {
        None
    } else {
        humantime::parse_duration(text).ok()
    }
}

fn size(text: &str) -> Option<u64> {
    let bare = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if bare {
        None
    } else {
        text.parse::<ByteSize>().ok().map(|size| size.as_u64())
    }
}

/// An absolute path without `..`, free of doubled and trailing slashes.
fn path(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    let fits = path.is_absolute() && !climbs && !text.contains('\0');
    fits.then(|| path.components().collect())
}

/// The address of one host.
fn ip(text: &str) -> Option<IpAddr> {
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    let one = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && *ip != broadcast;
    text.parse().ok().filter(one)
}

/// `FIRST-LAST`, both included.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let ports = port(first)?..=port(last)?;
    (!ports.is_empty()).then_some(ports)
}

fn choice(key: &Key, options: &'static [&'static str], text: &str) -> Result<Typed, Wrong> {
    if let Some(found) = options.iter().find(|option| **option == text) {
        return Ok(Typed::Choice(found));
    }
    let found = format!("{text:?}");
    let lower = text.to_lowercase();
    let near = suggest::nearest(&lower, options.iter().copied());
    let prefix = options
        .iter()
        .copied()
        .find(|option| lower.len() >= 3 && option.starts_with(&lower));
    let way_out = match near.or(prefix) {
        Some(option) => format!("did you mean {option:?}?"),
        None => "write one of these".into(),
    };
    Err(Wrong::new(found, allowed(key), way_out))
}

fn patterns(key: &Key, items: &[Value]) -> Result<Typed, Wrong> {
    let mut patterns = Vec::new();
    for item in items {
        let ValueKind::String(pattern) = &item.kind else {
            let found = format!("the list item {}", item.kind);
            return Err(Wrong::new(
                found,
                allowed(key),
                "write each pattern in quotes",
            ));
        };
        if pattern.is_empty() {
            let found = "an empty pattern";
            return Err(Wrong::new(
                found,
                allowed(key),
                "remove it, or the comma too many",
            ));
        }
        if pattern.starts_with('/') {
            let way_out = "remove the slash at its start: paths begin below the spool";
            return Err(Wrong::new(format!("{pattern:?}"), allowed(key), way_out));
        }
        if let Err(error) = globset::Glob::new(pattern) {
            let found = format!("{pattern:?}: {}", error.kind());
            return Err(Wrong::new(found, allowed(key), "repair the pattern"));
        }
        patterns.push(pattern.clone());
    }
    Ok(Typed::Patterns(patterns))
}

/// What `key` allows, in words; also the text of `config/ftpulse.toml`.
pub(super) fn allowed(key: &Key) -> String {
    let kind = match key.kind {
        Kind::Duration(min, max) => format!("a duration with its unit, {min} to {max}"),
        Kind::DurationOrNone(min, max) => {
            format!("a duration with its unit, {min} to {max}, or none")
        }
        Kind::Whole(min, max) => format!("a whole number, {min} to {max}"),
        Kind::Share => "a number, 0 to 1".into(),
        Kind::Size(min, max) => format!("a size with its unit, {min} to {max}"),
        Kind::SizeOrNone(min, max) => format!("a size with its unit, {min} to {max}, or none"),
        Kind::Bool => "true or false".into(),
        Kind::Choice(options) => options.join(", "),
        Kind::Path => "an absolute path, no .. in it".into(),
        Kind::SecretFile => "the absolute path of a file that holds the secret".into(),
        Kind::Secret => "a text".into(),
        Kind::Text => "a text".into(),
        Kind::Patterns => "a list of shell patterns; by variable, with commas between them".into(),
        Kind::Address => "an IP address and a port".into(),
        Kind::Ip => "the IP address of one host".into(),
        Kind::Ports => "two ports with - between them, 1 to 65535, the lower one first".into(),
        Kind::Server => server::ALLOWED.into(),
    };
    match key.default {
        Some("") => format!("{kind}; default none"),
        Some(default) => format!("{kind}; default {default}"),
        None => kind,
    }
}

/// The value for a person: never a secret, nor what might be one by mistake.
pub(super) fn show(key: &Key, value: &ValueKind) -> String {
    let likely_secret = match (key.kind, value) {
        (Kind::Secret, _) => true,
        (Kind::SecretFile, ValueKind::String(text)) => !text.starts_with('/'),
        (Kind::SecretFile, _) => true,
        _ => false,
    };
    match (key.kind, value) {
        _ if likely_secret => format!("{} (not shown: it may be a secret)", type_of(value)),
        (Kind::Server, ValueKind::String(text)) => format!("{:?}", server::redact(text)),
        (Kind::Server, _) => type_of(value).into(),
        (_, ValueKind::String(text)) => format!("{text:?}"),
        (_, ValueKind::I64(number)) => format!("the number {number}"),
        (_, ValueKind::Float(number)) => format!("the number {number}"),
        (_, ValueKind::Boolean(value)) => value.to_string(),
        (_, other) => type_of(other).into(),
    }
}

/// The type of a value, in words.
pub(super) fn type_of(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::String(_) => "a text",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::Array(_) => "a list",
        ValueKind::Table(_) => "a section",
        ValueKind::Nil => "nothing",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "a whole number"
        }
    }
}

fn way_out(key: &Key, value: &ValueKind) -> String {
    let digits = match value {
        ValueKind::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.clone(),
        ValueKind::I64(number) => number.to_string(),
        _ => String::new(),
    };
    let hint = match key.kind {
        Kind::Duration(min, max) | Kind::DurationOrNone(min, max) => {
            let fits = |text: &str| {
                let found = duration(text);
                duration(min) <= found && found <= duration(max) && found.is_some()
            };
            let units = ["s", "ms", "m", "h", "d"];
            return example("duration", &digits, &units, &DURATIONS, min, fits);
        }
        Kind::Size(min, max) | Kind::SizeOrNone(min, max) => {
            let fits = |text: &str| {
                let found = size(text);
                size(min) <= found && found <= size(max) && found.is_some()
            };
            let units = ["B", "KiB", "MiB", "GiB"];
            return example("size", &digits, &units, &SIZES, min, fits);
        }
        Kind::Whole(..) => match value {
            ValueKind::I64(_) => "write a number within these bounds",
            // More digits than 64 bits hold: too large rather than misspelt.
            ValueKind::String(_) if digits.len() > 18 => "write a number within these bounds",
            _ => "write the number in digits, without quotes or unit",
        },
        Kind::Share => "write a number such as 0.2, without quotes",
        Kind::Bool => "write true or false, without quotes",
        Kind::Path => "write the whole path from / on, without ..",
        Kind::SecretFile => {
            "write the whole path from / on; the secret itself goes into the key without _file"
        }
        Kind::Patterns => "write a list such as [\"*.csv\", \"out/**\"]",
        Kind::Address => {
            "write it such as 127.0.0.1:9188, 0.0.0.0:9188 or [::1]:9188; no host name"
        }
        Kind::Ip => "write it such as \"192.0.2.7\" or \"2001:db8::7\"; no port, no host name",
        Kind::Ports => "write them such as \"50000-50100\"",
        Kind::Secret | Kind::Text | Kind::Server => "write it in quotes",
        Kind::Choice(..) => "write one of these, in quotes",
    };
    hint.into()
}

/// Examples of durations and sizes: those within a setting's bounds are told.
const DURATIONS: [&str; 6] = ["500ms", "10s", "5m", "2h", "30d", "365d"];
const SIZES: [&str; 4] = ["64KiB", "10MB", "1GiB", "1TiB"];

/// What to write instead: what was written with its unit where that alone was missing, or else a
/// value that would be taken.
fn example(
    what: &str,
    digits: &str,
    units: &[&str],
    examples: &[&str],
    min: &str,
    fits: impl Fn(&str) -> bool,
) -> String {
    let with_unit = units.iter().map(|unit| format!("{digits}{unit}"));
    let with_unit: Vec<_> = with_unit
        .filter(|text| !digits.is_empty() && fits(text))
        .take(2)
        .map(|text| format!("{text:?}"))
        .collect();
    if !with_unit.is_empty() {
        return format!("write its unit, such as {}", with_unit.join(" or "));
    }
    let mut within: Vec<_> = examples
        .iter()
        .copied()
        .filter(|text| fits(text))
        .take(4)
        .collect();
    if within.is_empty() {
        within.push(min);
    }
    let last = within.pop().unwrap_or(min);
    let told = match within.is_empty() {
        true => last.to_owned(),
        false => format!("{} or {last}", within.join(", ")),
    };
    let unit = if digits.is_empty() {
        ""
    } else {
        " and with its unit"
    };
    format!("write a {what} within these bounds{unit}, such as {told}")
}
