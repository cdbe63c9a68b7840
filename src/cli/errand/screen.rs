//! What a one-shot command shows: a progress bar where standard error is a terminal, else a line a
//! file, and one every ten seconds for a file that takes long. It decides nothing, and a reader
//! that is gone does not stop it.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use prometheus::IntCounter;
use slog::{Level, Logger};

use crate::cli::Global;
use crate::cli::words::{size, span};
use crate::clock::{self, Mono};
use crate::log::{self, Form, escape};

/// From one line about a long file to the next.
const LINES: Duration = Duration::from_secs(10);

/// Where results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// Standard output.
    Out,
    /// Standard error, as the other one carries a file.
    Err,
}

/// The screen.
pub struct Screen {
    bars: Option<MultiProgress>,
    results: Results,
    quiet: bool,
    /// All files together, where there are several.
    total: Option<ProgressBar>,
    /// Bytes of the files that are done.
    done: u64,
    file: Option<Shown>,
}

/// The file in work.
struct Shown {
    name: String,
    size: u64,
    bar: Option<ProgressBar>,
    began: Mono,
    /// Its last line, and where it stood then.
    told: (Mono, u64),
    position: u64,
}

impl Screen {
    /// Nothing is shown yet.
    pub fn new(global: Global, results: Results) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let drawn = io::stderr().is_terminal() && !dumb && !global.quiet;
        let target = ProgressDrawTarget::stderr;
        Self {
            bars: drawn.then(|| MultiProgress::with_draw_target(target())),
            results,
            quiet: global.quiet,
            total: None,
            done: 0,
            file: None,
        }
    }

    /// The log of the command, as sentences that leave the bars whole.
    pub fn logger(&self, global: Global) -> (Logger, log::Guard) {
        let out = Notes(self.bars.clone());
        let level = global.level(Level::Info);
        log::logger_to(out, Form::Sentence, level, lost())
    }

    /// So many files of so many bytes are to come.
    pub fn expect(&mut self, files: usize, bytes: u64) {
        if let Some(bars) = self.bars.as_ref().filter(|_| files > 1) {
            let bar = bars.add(ProgressBar::new(bytes));
            bar.set_style(style());
            bar.set_message(format!("{files} files"));
            self.total = Some(bar);
        }
    }

    /// A file begins.
    pub fn begin(&mut self, name: &str, size: u64) {
        let name = escape(name).into_owned();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.insert(0, ProgressBar::new(size));
            bar.set_style(style());
            bar.set_message(name.clone());
            bar
        });
        let now = clock::mono();
        self.file = Some(Shown {
            name,
            size,
            bar,
            began: now,
            told: (now, 0),
            position: 0,
        });
    }

    /// The file in work is of that size, which was not known when it began.
    pub fn is_of(&mut self, size: u64) {
        let Some(file) = &mut self.file else { return };
        file.size = size;
        if let Some(bar) = &file.bar {
            bar.set_length(size);
        }
    }

    /// The file in work stands there.
    pub fn at(&mut self, position: u64) {
        let Some(file) = &mut self.file else { return };
        let first = file.position == 0 && position > 0;
        file.position = position.min(file.size);
        // The pace begins here: what an earlier command moved is not part of it.
        if let Some(bar) = &file.bar {
            bar.set_position(file.position);
            if first {
                bar.reset_eta();
            }
        }
        if let Some(total) = &self.total {
            total.set_position(self.done + file.position);
            if first {
                total.reset_eta();
            }
        }
        let now = clock::mono();
        if self.bars.is_none() && now >= file.told.0 + LINES {
            let line = file.line(now);
            file.told = (now, file.position);
            self.result(&line);
        }
    }

    /// The file in work is done with; how it ended, where that is no matter of the log.
    pub fn end(&mut self, how: Option<&str>) {
        let Some(file) = self.file.take() else { return };
        if let Some(bar) = &file.bar {
            bar.finish_and_clear();
        }
        self.done += file.size;
        if let Some(total) = &self.total {
            total.set_position(self.done);
        }
        if let Some(how) = how {
            let took = clock::mono().saturating_sub(file.began).as_secs_f64();
            let line = format!("{}: {how} in {}", file.name, span(took));
            self.result(&line);
        }
    }

    /// A line of the result.
    pub fn result(&self, line: &str) {
        if self.quiet {
            return;
        }
        let write = || {
            // Nobody reads an output that is gone; the exit code still tells.
            let _ = match self.results {
                Results::Out => writeln!(io::stdout(), "{line}"),
                Results::Err => writeln!(io::stderr(), "{line}"),
            };
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// The bars go.
    pub fn clear(&mut self) {
        self.end(None);
        if let Some(total) = self.total.take() {
            total.finish_and_clear();
        }
    }
}

/// A file that is done with; how much of it this command moved.
pub fn told(whole: u64, moved: u64) -> String {
    match moved < whole {
        true => format!("{} ({} of it now)", size(whole), size(moved)),
        false => size(whole),
    }
}

impl Shown {
    fn line(&self, now: Mono) -> String {
        let seconds = now.saturating_sub(self.told.0).as_secs_f64();
        let rate = self.position.saturating_sub(self.told.1) as f64 / seconds.max(0.001);
        let left = self.size.saturating_sub(self.position) as f64 / rate;
        let rest = if rate < 1.0 {
            "nothing moves".to_owned()
        } else {
            format!("{}/s, {} left", size(rate as u64), span(left))
        };
        let (at, of) = (size(self.position), size(self.size));
        format!("{}: {at} of {of}, {rest}", self.name)
    }
}

/// What a bar shows.
const BAR: &str = "{msg:20!} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

fn style() -> ProgressStyle {
    // It is sound: a test holds that.
    ProgressStyle::with_template(BAR)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// Lines of the log that were lost are told by the log itself.
#[allow(clippy::expect_used)]
fn lost() -> IntCounter {
    IntCounter::new("lost", "lost").expect("a sound name")
}

/// Standard error below the bars.
struct Notes(Option<MultiProgress>);

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write(bytes);
        match &self.0 {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_told_with_its_rate_and_the_time_left() {
        let at = Duration::from_secs;
        let mut shown = Shown {
            name: "a.bin".into(),
            size: 100 << 20,
            bar: None,
            began: at(0),
            told: (at(10), 20 << 20),
            position: 40 << 20,
        };
        assert_eq!(
            shown.line(at(20)),
            "a.bin: 40.0 MiB of 100.0 MiB, 2.0 MiB/s, 30s left"
        );
        shown.told = (at(20), 40 << 20);
        assert_eq!(
            shown.line(at(30)),
            "a.bin: 40.0 MiB of 100.0 MiB, nothing moves"
        );
    }

    #[test]
    fn the_bar_has_its_own_style() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
