//! Makes names, server replies and errors safe and short enough for a person to read.
//! The result is for reading, not for parsing: a backslash stays as it is, so escaping twice
//! changes nothing. It never contains a control, bidirectional or line-breaking character.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write;

/// Longest result of [`escape`] and [`escape_bytes`], in characters: the longest path of Linux.
const LONGEST: usize = 4096;

/// Longest result of [`escape_reply`], in characters; a server may send 256 KiB.
const LONGEST_REPLY: usize = 512;

/// Deepest error chain that is followed; real ones have under ten links.
const DEEPEST: usize = 32;

/// Whether a character could act on the reader's terminal or rearrange the line.
pub(super) fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// A name or other foreign text, escaped, cut with `…` after 4096 characters.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && !text.contains(is_dangerous) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(bounded(text.as_bytes(), LONGEST))
}

/// Like [`escape`] for bytes that need not be UTF-8: an invalid byte becomes `\xff`.
pub fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => escape(text),
        Err(_) => Cow::Owned(bounded(bytes, LONGEST)),
    }
}

/// A server's reply, escaped, cut with `…` after 512 characters; line ends at its end are left out.
pub fn escape_reply(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b'\r' | b'\n'))
        .map_or(0, |at| at + 1);
    bounded(&bytes[..end], LONGEST_REPLY)
}

/// An error with all its sources, outermost first, nothing said twice, escaped.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    for _ in 0..DEEPEST {
        let Some(link) = next else { break };
        next = link.source();
        let text = link.to_string();
        if text.is_empty() || parts.iter().any(|part| part.contains(&text)) {
            continue;
        }
        // A link that only prefixes what the next one says adds nothing.
        if parts
            .last()
            .is_some_and(|part| text.contains(part.as_str()))
        {
            parts.pop();
        }
        parts.push(text);
    }
    escape(&parts.join(": ")).into_owned()
}

/// Appends the whole text, escaped.
pub(super) fn push(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_char(out, c);
        }
        for byte in chunk.invalid() {
            push_byte(out, *byte);
        }
    }
}

/// The text, escaped, at most `longest` characters long; `…` is the last one if it was cut.
fn bounded(bytes: &[u8], longest: usize) -> String {
    // A character takes at most four bytes and never gives less than one: what lies beyond
    // cannot be part of the result.
    let cut = bytes.len().min(longest.saturating_add(1).saturating_mul(4));
    let mut out = String::new();
    let mut length = 0;
    // Where the last piece begins: an escape sequence is never cut in its middle.
    let mut last = 0;
    let mut piece = String::new();
    for chunk in bytes[..cut].utf8_chunks() {
        let pieces = chunk
            .valid()
            .chars()
            .map(Ok)
            .chain(chunk.invalid().iter().map(Err));
        for next in pieces {
            piece.clear();
            match next {
                Ok(c) => push_char(&mut piece, c),
                Err(byte) => push_byte(&mut piece, *byte),
            }
            let more = piece.chars().count();
            if length + more > longest {
                return cut_short(out, last, length == longest);
            }
            last = out.len();
            out.push_str(&piece);
            length += more;
        }
    }
    if cut < bytes.len() {
        cut_short(out, last, length == longest)
    } else {
        out
    }
}

/// Ends a cut text with `…`, in place of its last piece where there is no room.
fn cut_short(mut out: String, last: usize, full: bool) -> String {
    if full {
        out.truncate(last);
    }
    out.push('…');
    out
}

fn push_char(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c.is_ascii_control() => push_byte(out, c as u8),
        c if is_dangerous(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    }
}

fn push_byte(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}
