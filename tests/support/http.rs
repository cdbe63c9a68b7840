//! The least of an HTTP client, and of a reader of the Prometheus text format.
//! Written out so that what the service sends is seen as it is.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Generous: what does not come within this time does not come.
const SOON: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code; 0 if there is none to read.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Body, with chunks joined.
    pub body: String,
}

impl Answer {
    /// A header's value; names in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// A connection on which nothing was sent yet.
pub fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

/// GET, one connection, the address itself as `Host`.
pub fn get(addr: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(addr, "GET", path, "")
}

/// Any request; `headers` are whole lines, each ended by CR LF; a `Host` among them replaces the
/// usual one.
pub fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> std::io::Result<Answer> {
    let host = if headers.to_ascii_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {addr}\r\n")
    };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    raw(addr, request.as_bytes())
}

/// These very bytes, and what comes back until the server closes.
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> std::io::Result<Answer> {
    let mut stream = connect(addr)?;
    stream.write_all(bytes)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let split = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let mut body = bytes.get(split + 4..).unwrap_or_default().to_vec();
    if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        body = join_chunks(&body);
    }
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    Ok(Answer {
        status,
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn join_chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        joined.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    joined
}

/// The samples of one scrape.
#[derive(Debug)]
pub struct Metrics {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
    /// The text as it came.
    pub text: String,
}

impl Metrics {
    /// Reads the text format; panics on a line that is none.
    pub fn parse(text: String) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(sample).collect();
        Self { samples, text }
    }

    /// Values of a metric whose labels include the given ones.
    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let fits = |have: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| have.get(*key).is_some_and(|v| v == value))
        };
        let found = self.samples.iter().filter(|(n, l, _)| n == name && fits(l));
        found.map(|(.., value)| *value).collect()
    }

    /// Sum over the matching samples; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).iter().sum()
    }

    /// The one matching sample; `None` if there is none or more than one.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match self.matching(name, labels)[..] {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Whether any sample has that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(n, ..)| n == name)
    }
}

/// `name{key="value",…} number`; values may hold escaped quotes, backslashes and newlines.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line
        .find(['{', ' '])
        .unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, value) = rest
                .split_once("=\"")
                .unwrap_or_else(|| panic!("label: {line}"));
            let mut text = String::new();
            let mut chars = value.char_indices();
            rest = loop {
                match chars.next().unwrap_or_else(|| panic!("open label: {line}")) {
                    (at, '"') => break &value[at + 1..],
                    (_, '\\') => match chars.next().unwrap().1 {
                        'n' => text.push('\n'),
                        other => text.push(other),
                    },
                    (_, other) => text.push(other),
                }
            };
            labels.insert(key.trim_start_matches(',').to_owned(), text);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next().and_then(|v| v.parse().ok());
    (
        name.to_owned(),
        labels,
        value.unwrap_or_else(|| panic!("no value: {line}")),
    )
}
