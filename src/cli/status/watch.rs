//! The status again each second until a signal: in place on a terminal, which is given back as it
//! was, otherwise block after block. A service that does not answer is said and asked again; only
//! a refusal that will not change ends the watch.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use super::page;
use crate::cli::client::{Client, Failure, Kind};
use crate::cli::look::{Look, rows};
use crate::cli::signals::Signals;
use crate::cli::words::{span, when};
use crate::cli::{EXIT_FAILED, complain};
use crate::clock;
use crate::report::Status;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Another page, no cursor, no wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All that undone, colors too.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Watches until a signal ends the process (128 + n), nobody reads any more, or the service
/// refuses.
pub fn watch(client: &Client, json: bool, quiet: bool) -> ExitCode {
    let drawn = !json && !quiet && rows().is_some();
    let leave = if drawn { LEAVE } else { "" };
    if let Err(error) = end_on_signals(leave) {
        complain(&format!("cannot listen to signals: {error}"));
        return ExitCode::from(EXIT_FAILED);
    }
    let ended = if drawn {
        write(ENTER).and_then(|()| look_on(&mut Screen { client, last: None }))
    } else {
        look_on(&mut Blocks {
            client,
            json,
            quiet,
        })
    };
    let left = write(leave);
    match ended.and_then(|failure| left.map(|()| failure)) {
        Ok(failure) => complain(&failure.text),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(error) => complain(&format!("standard output cannot be written: {error}")),
    }
    ExitCode::from(EXIT_FAILED)
}

/// Asks once and shows it; the outer error is that of standard output.
trait Show {
    fn show(&mut self) -> io::Result<Result<(), Failure>>;
}

/// Shows again and again, until a failure that the next time would not mend.
fn look_on(shown: &mut impl Show) -> io::Result<Failure> {
    // Nothing ever comes: signals end the process from their own thread.
    let (_keep, never) = mpsc::channel::<()>();
    loop {
        let begun = clock::mono();
        match shown.show()? {
            Err(failure) if failure.kind != Kind::Silent => return Ok(failure),
            Ok(()) | Err(_) => {}
        }
        let used = clock::mono().saturating_sub(begun);
        let _ = never.recv_timeout(PERIOD.saturating_sub(used));
    }
}

/// One block or line after the other.
struct Blocks<'a> {
    client: &'a Client,
    json: bool,
    quiet: bool,
}

impl Show for Blocks<'_> {
    fn show(&mut self) -> io::Result<Result<(), Failure>> {
        let text = if self.json {
            self.client.document("/api/status")
        } else {
            let now = clock::unix();
            let block = |status: Status| block(&status, now, Look::of_stdout());
            self.client.status().map(block)
        };
        match text {
            Ok(_) if self.quiet && !self.json => {}
            Ok(text) => write(&text)?,
            Err(failure) => {
                if failure.kind == Kind::Silent {
                    complain(&format!("{}; asking again each second", failure.text));
                }
                return Ok(Err(failure));
            }
        }
        Ok(Ok(()))
    }
}

fn block(status: &Status, now: f64, look: Look) -> String {
    format!("{}\n{}\n", when(now), page::page(status, now, look))
}

/// A terminal, drawn over and over.
struct Screen<'a> {
    client: &'a Client,
    /// The last answer and its time.
    last: Option<(Status, f64)>,
}

impl Show for Screen<'_> {
    fn show(&mut self) -> io::Result<Result<(), Failure>> {
        let answer = self.client.status();
        let now = clock::unix();
        let look = Look::of_stdout();
        let (text, shown) = match answer {
            Ok(status) => {
                let text = block(&status, now, look);
                self.last = Some((status, now));
                (text, Ok(()))
            }
            Err(failure) => (
                without_answer(&failure, self.last.as_ref(), now, look),
                Err(failure),
            ),
        };
        write(&frame(&text, rows().unwrap_or(usize::MAX)))?;
        Ok(shown)
    }
}

/// What is shown while the service does not answer: that, and what it said last.
fn without_answer(failure: &Failure, last: Option<&(Status, f64)>, now: f64, look: Look) -> String {
    let mut text = format!("{}\n", when(now));
    // The terminal does not wrap: a sentence does not fit into one line.
    let width = look.width.unwrap_or(usize::MAX).max(1);
    let sentence: Vec<char> = failure.text.chars().collect();
    for line in sentence.chunks(width) {
        text.extend(line);
        text.push('\n');
    }
    text.push_str("it is asked again each second\n");
    if let Some((status, at)) = last {
        text.push_str(&format!("\nits last answer, {} ago:\n", span(now - at)));
        text.push_str(&page::page(status, *at, look));
    }
    text
}

/// One picture: from the top, each line's rest and what lies below wiped, cut to the rows.
fn frame(text: &str, rows: usize) -> String {
    let text = text.trim_end_matches('\n');
    let count = text.lines().count();
    let (shown, more) = if count > rows {
        let shown = rows.saturating_sub(1);
        (shown, Some(format!("… {} more lines", count - shown)))
    } else {
        (count, None)
    };
    let lines = text.lines().take(shown).map(str::to_owned).chain(more);
    let lines: Vec<String> = lines.map(|line| format!("{line}\x1b[K")).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// From here on a signal gives the terminal back and ends the process with 128 + n, whatever the
/// rest of it waits for (an answer, a reader that does not read).
fn end_on_signals(leave: &'static str) -> io::Result<()> {
    Signals::listen_apart(move |number| {
        // Past the lock of standard output, which a write that hangs holds.
        let _ = rustix::io::write(io::stdout(), leave.as_bytes());
        std::process::exit(128 + number);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_wipes_what_was_there_and_fits_the_rows() {
        assert_eq!(frame("a\nb\n\n", 5), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        let cut = frame("1\n2\n3\n4\n", 3);
        assert_eq!(
            cut,
            "\x1b[H1\x1b[K\r\n2\x1b[K\r\n… 2 more lines\x1b[K\x1b[J"
        );
        assert_eq!(frame("1\n2\n3\n", 3).matches("\r\n").count(), 2);
    }

    #[test]
    fn a_silent_service_is_said_above_its_last_answer() {
        let failure = Failure {
            kind: Kind::Silent,
            text: "nobody listens".into(),
        };
        let look = Look {
            width: Some(10),
            color: false,
        };
        let last = (Status::default(), 1_767_323_045.0);
        let text = without_answer(&failure, Some(&last), 1_767_323_050.0, look);
        let begins = "2026-01-02T03:04:10Z\nnobody lis\ntens\nit is asked again each second\n\n\
                      its last answer, 5.0s ago:\nftpulse";
        assert!(text.starts_with(begins), "{text}");
    }
}
