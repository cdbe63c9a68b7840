//! One record as a sentence, for whoever waits for a command: `ftpulse: a.csv: upload failed:
//! error; retry in 4s`. What is foreign is escaped; times and facts that only a program reads are
//! left out, but for debug records.

use std::fmt::Arguments;
use std::io;

use slog::{KV, Key, Level, Record, Serializer};

use super::escape;

/// The sentence with its line end.
pub(super) fn of(record: &Record) -> io::Result<String> {
    let mut facts = Facts(Vec::new());
    let read = record.kv().serialize(record, &mut facts);
    read.map_err(io::Error::other)?;
    let (file, error, cause) = (facts.take("file"), facts.take("error"), facts.take("cause"));
    let (attempt, of, next) = (facts.take("attempt"), facts.take("of"), facts.take("next"));
    let mut line = String::from("ftpulse: ");
    let mut add = |mark: &str, text: &str| {
        line.push_str(mark);
        escape::push(&mut line, text.as_bytes());
    };
    if let Some(file) = file {
        add("", &format!("{file}: "));
    }
    add("", &record.msg().to_string());
    if let (Some(attempt), Some(of)) = (attempt, of) {
        add(" ", &format!("(attempt {attempt} of {of})"));
    }
    if let Some(error) = error {
        add(": ", &error);
    }
    if let Some(cause) = cause {
        add(", cause: ", &cause);
    }
    if !record.level().is_at_least(Level::Info) {
        for (key, value) in &facts.0 {
            add(", ", &format!("{key}: {value}"));
        }
    }
    if let Some(next) = next {
        add("; ", &next);
    }
    line.push('\n');
    Ok(line)
}

/// The facts of a record.
struct Facts(Vec<(Key, String)>);

impl Facts {
    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| *known == key)?;
        Some(self.0.remove(at).1)
    }
}

impl Serializer for Facts {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        // slog hands the last one over first.
        self.0.insert(0, (key, value.to_string()));
        Ok(())
    }

    fn emit_none(&mut self, _: Key) -> slog::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{b, record};

    #[test]
    fn a_sentence_says_what_failed_and_what_is_next() {
        let told = |record: &Record| of(record).unwrap();
        let line = told(&record!(
            Level::Warning,
            "",
            &format_args!("upload failed"),
            b!("file" => "a\u{1b}[2J", "slot" => 1, "error" => "no\nroom", "cause" => None::<&str>,
               "next" => "retry in 4s")
        ));
        let expected = "ftpulse: a\\x1b[2J: upload failed: no\\nroom; retry in 4s\n";
        assert_eq!(line, expected);
        let debug = told(&record!(
            Level::Debug,
            "",
            &format_args!("session opened"),
            b!("server" => "u@h:21", "more" => 7)
        ));
        assert_eq!(debug, "ftpulse: session opened, server: u@h:21, more: 7\n");
        let tried = told(&record!(
            Level::Info,
            "",
            &format_args!("connecting failed"),
            b!("attempt" => 1, "of" => 5, "error" => "refused", "next" => "again in 2s")
        ));
        assert_eq!(
            tried,
            "ftpulse: connecting failed (attempt 1 of 5): refused; again in 2s\n"
        );
    }
}
