//! One record as one line of text or JSON. Pure: the time is given, nothing is written out.
//! No control or bidirectional character of a message, key or value survives; colors are the
//! only escape sequences in the result.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use slog::{Drain, Level, OwnedKVList, Record, o};
use slog_json::Json;
use slog_term::{Decorator, FullFormat, RecordDecorator};

use super::{escape, sentence};

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `2026-01-02T03:04:05.678Z INFO message, key: value`.
    Text {
        /// Whether terminal colors are used.
        color: bool,
    },
    /// One JSON object: `ts` (RFC 3339), `level`, `msg`, then the facts.
    Json,
    /// `ftpulse: message: file: error; what next`, for whoever waits for a command.
    Sentence,
}

impl Form {
    /// The record as a line with its line end; `unix` is the time it happened.
    pub(super) fn line(self, record: &Record, values: &OwnedKVList, unix: f64) -> String {
        let at = UNIX_EPOCH + Duration::try_from_secs_f64(unix).unwrap_or_default();
        let ts = humantime::format_rfc3339_millis(at).to_string();
        let made = match self {
            Form::Text { color } => as_text(record, values, ts, color),
            Form::Json => as_json(record, values, ts),
            Form::Sentence => sentence::of(record),
        };
        // Only a fact whose own serializer fails ends here; the message is still worth a line.
        made.unwrap_or_else(|e| {
            let error = format!("a fact cannot be written: {e}");
            let msg = record.msg().to_string();
            sealed(&json!({ "level": "ERROR", "msg": msg, "error": error }).to_string())
        })
    }
}

fn as_json(record: &Record, values: &OwnedKVList, ts: String) -> io::Result<String> {
    let mut raw = Vec::with_capacity(256);
    Json::new(&mut raw)
        .add_key_value(o!("ts" => ts))
        .add_key_value(o!("level" => record.level().as_str()))
        .add_key_value(o!("msg" => record.msg().to_string()))
        .build()
        .log(record, values)?;
    let raw = String::from_utf8_lossy(&raw);
    Ok(sealed(raw.trim_end_matches('\n')))
}

/// JSON with a line end. JSON itself escapes only C0; what is left of the dangerous characters
/// stands inside strings and lies in the basic plane.
pub fn sealed(raw: &str) -> String {
    let mut line = String::with_capacity(raw.len() + 1);
    for c in raw.chars() {
        if escape::is_dangerous(c) {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

fn as_text(record: &Record, values: &OwnedKVList, ts: String, color: bool) -> io::Result<String> {
    let line = RefCell::new(String::with_capacity(256));
    FullFormat::new(Paint { line: &line, color })
        .use_original_order()
        .use_custom_timestamp(move |out| out.write_all(ts.as_bytes()))
        .build()
        .log(record, values)?;
    Ok(line.into_inner())
}

/// Hands slog-term the line to write on.
struct Paint<'a> {
    line: &'a RefCell<String>,
    color: bool,
}

impl Decorator for Paint<'_> {
    fn with_record<F>(&self, record: &Record, _: &OwnedKVList, f: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        f(&mut Brush {
            line: &mut self.line.borrow_mut(),
            level: record.level(),
            color: self.color,
            painted: false,
            layout: true,
        })
    }
}

/// Writes one record: layout as it is, everything else escaped.
struct Brush<'a> {
    line: &'a mut String,
    level: Level,
    color: bool,
    painted: bool,
    layout: bool,
}

impl Brush<'_> {
    fn start(&mut self, style: &str) -> io::Result<()> {
        self.reset()?;
        if self.color {
            self.line.push_str(style);
            self.painted = true;
        }
        Ok(())
    }
}

impl Write for Brush<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.layout => self.line.push_str(text),
            _ => escape::push(self.line, bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RecordDecorator for Brush<'_> {
    fn reset(&mut self) -> io::Result<()> {
        if self.painted {
            self.line.push_str("\x1b[0m");
        }
        self.painted = false;
        self.layout = false;
        Ok(())
    }

    // slog-term writes blanks and the line end, and nothing else, under this heading.
    fn start_whitespace(&mut self) -> io::Result<()> {
        self.reset()?;
        self.layout = true;
        Ok(())
    }

    fn start_level(&mut self) -> io::Result<()> {
        self.start(match self.level {
            Level::Critical => "\x1b[35m",
            Level::Error => "\x1b[31m",
            Level::Warning => "\x1b[33m",
            Level::Info => "\x1b[32m",
            Level::Debug => "\x1b[36m",
            Level::Trace => "\x1b[34m",
        })
    }

    fn start_msg(&mut self) -> io::Result<()> {
        self.start("\x1b[1m")
    }

    fn start_key(&mut self) -> io::Result<()> {
        self.start("\x1b[2m")
    }
}
