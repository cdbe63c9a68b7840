//! What a story looks like: one line a step with the time since the start, wrapped and coloured on
//! a terminal only. It decides nothing; a reader that is gone is noticed, not complained about.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::cli::look::Look;
use crate::clock::{Mono, mono};

/// Columns of a wrapped line: what every terminal has.
const COLUMNS: usize = 80;
/// Where the text of a step begins: time, label.
const INDENT: usize = 22;

/// What a step means to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It goes on.
    Plain,
    /// It went well.
    Good,
    /// Something is wrong.
    Bad,
    /// It is watched.
    Watch,
}

impl Tone {
    fn style(self) -> &'static str {
        match self {
            Self::Plain => "\x1b[36m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[1;31m",
            Self::Watch => "\x1b[33m",
        }
    }
}

/// The writer of a story, to standard output.
pub struct Tell {
    start: Mono,
    quiet: bool,
    color: bool,
    wrap: bool,
    gone: bool,
}

impl Tell {
    /// A story that begins now; a quiet one is not written.
    pub fn new(quiet: bool) -> Self {
        Self {
            start: mono(),
            quiet,
            color: Look::of_stdout().color,
            wrap: io::stdout().is_terminal(),
            gone: false,
        }
    }

    /// Whether nobody reads any more.
    pub fn gone(&self) -> bool {
        self.gone
    }

    /// A chapter begins.
    pub fn heading(&mut self, text: &str) {
        let text = self.styled("\x1b[1m", text);
        self.write(&format!("\n{text}\n"));
    }

    /// A fact beside its name.
    pub fn fact(&mut self, name: &str, text: &str) {
        let name = format!("  {name:<11}");
        let lines = self.wrapped(text, name.len());
        let name = self.styled("\x1b[36m", &name);
        self.write(&format!("{name}{}\n", lines.join(&format!("\n{:13}", ""))));
    }

    /// Something happened now.
    pub fn step(&mut self, tone: Tone, label: &str, text: &str) {
        let lines = self.wrapped(text, INDENT);
        let time = format!("{:>7.2}s", mono().saturating_sub(self.start).as_secs_f64());
        let time = self.styled("\x1b[2m", &time);
        let label = self.styled(tone.style(), &format!("{label:<12}"));
        let text = lines.join(&format!("\n{:INDENT$}", ""));
        self.write(&format!("{time} {label} {text}\n"));
    }

    /// A line of its own.
    pub fn line(&mut self, text: &str) {
        let text = self.wrapped(text, 0).join("\n");
        self.write(&format!("{text}\n"));
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.color {
            format!("{style}{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn wrapped(&self, text: &str, indent: usize) -> Vec<String> {
        if self.wrap {
            wrap(text, COLUMNS - indent)
        } else {
            vec![text.to_owned()]
        }
    }

    fn write(&mut self, text: &str) {
        if self.quiet || self.gone {
            return;
        }
        let mut out = io::stdout().lock();
        self.gone = out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err();
    }
}

/// Breaks at blanks; a word longer than a line (a path) stays whole.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A time for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks_and_words_stay_whole() {
        assert_eq!(
            wrap("the peer stops reading", 9),
            ["the peer", "stops", "reading"]
        );
        assert_eq!(
            wrap("a /very/long/path b", 6),
            ["a", "/very/long/path", "b"]
        );
        assert_eq!(wrap("", 6), [""]);
    }
}
