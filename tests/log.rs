//! The log: what a line looks like, what never gets into it, and that nobody ever waits for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ftpulse::log::{self, Form};
use prometheus::IntCounter;
use proptest::prelude::*;
use slog::{Level, Logger, info, o, warn};

/// Generous: an event that does not come within this time does not come.
const SOON: Duration = Duration::from_secs(60);

fn counter() -> IntCounter {
    IntCounter::new("dropped", "Dropped.").unwrap()
}

/// A writer whose content can be read afterwards.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `f` logs, in this form.
fn logged(form: Form, level: Level, f: impl FnOnce(&Logger)) -> String {
    let page = Page::default();
    let dropped = counter();
    let (logger, guard) = log::logger_to(page.clone(), form, level, dropped.clone());
    f(&logger);
    drop(guard);
    assert_eq!(dropped.get(), 0);
    page.text()
}

fn is_dangerous(c: char) -> bool {
    c.is_control()
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
        || ['\u{200e}', '\u{200f}', '\u{61c}', '\u{2028}', '\u{2029}'].contains(&c)
}

/// Text made mostly of what must not survive.
fn nasty() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        proptest::char::range('\0', '\u{ff}'),
        proptest::char::range('\u{2000}', '\u{2070}'),
        Just('\u{61c}'),
        Just('\u{1b}'),
        any::<char>(),
    ];
    proptest::collection::vec(c, 0..40).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn no_dangerous_character_survives_escaping(text in nasty()) {
        let escaped = log::escape(&text);
        prop_assert!(!escaped.contains(is_dangerous), "{escaped:?}");
        prop_assert_eq!(log::escape(&escaped), escaped.clone(), "escaping twice changes nothing");
        if !text.contains(is_dangerous) {
            prop_assert_eq!(&*escaped, &text, "harmless text stays as it is");
        }
        prop_assert!(!log::escape_reply(text.as_bytes()).contains(is_dangerous));
    }

    #[test]
    fn any_bytes_become_short_harmless_text(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        let escaped = log::escape_bytes(&bytes);
        prop_assert!(!escaped.contains(is_dangerous));
        prop_assert!(escaped.chars().count() <= 4096);
        let reply = log::escape_reply(&bytes);
        prop_assert!(!reply.contains(is_dangerous));
        prop_assert!(reply.chars().count() <= 512);
    }

    #[test]
    fn no_dangerous_character_survives_in_a_line_even_where_nobody_escaped(text in nasty()) {
        for form in [Form::Text { color: false }, Form::Json] {
            let out = logged(form, Level::Info, |log| {
                let child = log.new(o!("file" => text.clone()));
                info!(child, "message {}", text; "reply" => &text);
            });
            let line = out.strip_suffix('\n').unwrap();
            prop_assert!(!line.contains(is_dangerous), "{line:?}");
        }
    }

    #[test]
    fn a_json_line_keeps_every_character_of_a_fact(text in nasty()) {
        let out = logged(Form::Json, Level::Info, |log| info!(log, "m"; "file" => &text));
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        prop_assert_eq!(line["file"].as_str().unwrap(), text);
    }
}

#[test]
fn escaped_text_shows_what_was_there() {
    assert_eq!(
        log::escape("a\x1b[31m\n\u{9b}\u{202e}b\\"),
        "a\\x1b[31m\\n\\u{9b}\\u{202e}b\\"
    );
    assert_eq!(log::escape_bytes(b"caf\xe9 caf\xc3\xa9"), "caf\\xe9 café");
    assert_eq!(log::escape_reply(b"550 no\r\n"), "550 no");
    assert_eq!(log::escape(""), "");
}

#[test]
fn long_text_is_cut_with_an_ellipsis_inside_the_bound() {
    let reply = log::escape_reply(&b"x".repeat(300_000));
    assert_eq!(reply.chars().count(), 512);
    assert!(reply.ends_with("x…"));
    assert_eq!(log::escape_reply(&b"x".repeat(512)), "x".repeat(512));
    assert_eq!(log::escape(&"é".repeat(4096)), "é".repeat(4096));
    let path = log::escape(&"é".repeat(4097)).into_owned();
    assert_eq!(path.chars().count(), 4096);
    // An escape sequence is never cut in its middle.
    assert_eq!(
        log::escape_reply(&[b'\x1b'; 600]),
        format!("{}…", "\\x1b".repeat(127))
    );
}

#[derive(Debug)]
struct Link(&'static str, Option<Box<Link>>);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Link {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|link| link as &dyn Error)
    }
}

fn links(texts: &[&'static str]) -> Link {
    let (first, rest) = texts.split_first().unwrap();
    Link(first, (!rest.is_empty()).then(|| Box::new(links(rest))))
}

#[test]
fn a_chain_says_everything_once() {
    assert_eq!(
        log::chain(&links(&["send a.txt", "read reply", "reset"])),
        "send a.txt: read reply: reset"
    );
    assert_eq!(
        log::chain(&links(&["open x: denied", "denied"])),
        "open x: denied"
    );
    assert_eq!(
        log::chain(&links(&["io error", "io error", "io error: reset"])),
        "io error: reset"
    );
    assert_eq!(log::chain(&links(&["bad\x1b reply"])), "bad\\x1b reply");
    let wrapped = io::Error::other(links(&["outer", "inner"]));
    assert_eq!(log::chain(&wrapped), "outer: inner");
}

#[test]
fn a_json_line_begins_with_time_level_and_message() {
    let out = logged(Form::Json, Level::Info, |log| {
        let slot = log.new(o!("route" => "main"));
        warn!(slot, "uploader reset"; "epoch" => 3, "next" => "retry in 4s");
        slog::debug!(slot, "below the level");
    });
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(out.starts_with("{\"ts\":\"20"), "{out}");
    let at = |key: &str| out.find(key).unwrap_or_else(|| panic!("{key} in {out}"));
    assert!(at("\"ts\"") < at("\"level\":\"WARNING\""));
    assert!(at("\"level\"") < at("\"msg\":\"uploader reset\""));
    assert!(at("\"msg\"") < at("\"route\":\"main\""));
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["epoch"], 3);
    humantime::parse_rfc3339(line["ts"].as_str().unwrap()).unwrap();
}

#[test]
fn a_text_line_is_one_line_and_colored_only_on_demand() {
    let log_it = |log: &Logger| info!(log.new(o!("route" => "main")), "sent"; "file" => "a\nb\x1b");
    let plain = logged(Form::Text { color: false }, Level::Info, log_it);
    let (_, rest) = plain.split_once(' ').unwrap();
    assert_eq!(rest, "INFO sent, route: main, file: a\\nb\\x1b\n");
    let colored = logged(Form::Text { color: true }, Level::Info, log_it);
    assert!(colored.contains("\x1b[32mINFO\x1b[0m"), "{colored:?}");
    assert!(colored.contains("a\\nb\\x1b\n"), "{colored:?}");
}

/// A writer that takes nothing until it is told to.
struct Blocked {
    entered: Sender<()>,
    open: Receiver<()>,
    page: Page,
}

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        // Ends when the other side says so or goes away.
        let _ = self.open.recv();
        self.page.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stalls_blocks_nobody_and_the_losses_are_counted_and_told() {
    let (entered, in_write) = mpsc::channel();
    let (open_tx, open) = mpsc::channel();
    let page = Page::default();
    let dropped = counter();
    let out = Blocked {
        entered,
        open,
        page: page.clone(),
    };
    let (logger, guard) = log::logger_to(out, Form::Json, Level::Info, dropped.clone());

    let (done_tx, done) = mpsc::channel();
    let caller = std::thread::spawn({
        let logger = logger.clone();
        move || {
            for n in 0..10_000 {
                info!(logger, "line"; "n" => n);
            }
            done_tx.send(()).unwrap();
        }
    });
    in_write.recv_timeout(SOON).expect("the log thread writes");
    done.recv_timeout(SOON)
        .expect("10,000 calls return although no line is taken");
    caller.join().unwrap();
    let lost = dropped.get();
    assert!((8_900..10_000).contains(&lost), "{lost} lines dropped");

    // The reader comes back: everything queued is written, and the gap is told.
    drop(open_tx);
    for _ in 0..10_000 - lost {
        in_write
            .recv_timeout(SOON)
            .expect("every queued line and one about the gap");
    }
    drop(guard);
    let text = page.text();
    assert_eq!(text.lines().count() as u64, 10_000 - lost + 1);
    assert!(
        text.contains(&format!("\"count\":{lost}")),
        "the gap is told"
    );
    info!(logger, "after the end");
    assert_eq!(dropped.get(), lost + 1, "a line after the end is counted");
}

#[test]
fn a_reader_that_never_reads_does_not_hold_the_exit() {
    let (entered, in_write) = mpsc::channel();
    let (_never, open) = mpsc::channel();
    let out = Blocked {
        entered,
        open,
        page: Page::default(),
    };
    let (logger, guard) = log::logger_to(out, Form::Json, Level::Info, counter());
    for _ in 0..2_000 {
        info!(logger, "line");
    }
    in_write.recv_timeout(SOON).expect("the log thread writes");
    let (done_tx, done) = mpsc::channel();
    std::thread::spawn(move || {
        drop(guard);
        drop(logger);
        done_tx.send(()).unwrap();
    });
    done.recv_timeout(SOON)
        .expect("the guard's drop returns although nothing was read");
}

/// A writer that fails.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_cannot_be_written_counts_as_dropped() {
    let dropped = counter();
    let (logger, guard) = log::logger_to(Closed, Form::Json, Level::Info, dropped.clone());
    for _ in 0..5 {
        info!(logger, "line");
    }
    drop(guard);
    assert_eq!(dropped.get(), 5);
}

/// Makes a child of this test binary out of the test that calls it.
const CHILD: &str = "FTPULSE_TEST_LOG_CHILD";

fn config() -> ftpulse::config::Log {
    ftpulse::config::Log {
        level: Level::Info,
        format: ftpulse::config::LogFormat::Auto,
    }
}

fn child_of(test: &str) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    child
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    child
}

#[test]
fn a_full_pipe_on_standard_error_holds_neither_the_program_nor_its_panics_nor_its_end() {
    const NAME: &str =
        "a_full_pipe_on_standard_error_holds_neither_the_program_nor_its_panics_nor_its_end";
    if std::env::var_os(CHILD).is_some() {
        let dropped = counter();
        let (logger, guard) = log::logger(&config(), dropped.clone());
        log::log_panics(&logger);
        for n in 0..10_000 {
            info!(logger, "a line long enough to fill the pipe soon"; "n" => n);
        }
        assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err());
        drop(guard);
        println!("DROPPED={}", dropped.get());
        // The threads that still write die here, as they do when main returns.
        std::process::exit(0);
    }
    let mut child = child_of(NAME).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // Kept open and never read.
    let _stderr = child.stderr.take().unwrap();
    let (said_tx, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        said_tx.send(text).unwrap();
    });
    let text = match said.recv_timeout(SOON) {
        Ok(text) => text,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            child.kill().unwrap();
            panic!("the child did not end");
        }
    };
    assert!(child.wait().unwrap().success(), "{text}");
    let dropped: u64 = text
        .lines()
        .find_map(|l| l.split_once("DROPPED="))
        .unwrap()
        .1
        .parse()
        .unwrap();
    assert!(dropped > 5_000, "{dropped}");
}

#[test]
fn standard_error_gets_json_when_it_is_no_terminal_and_everything_is_flushed_at_the_end() {
    const NAME: &str =
        "standard_error_gets_json_when_it_is_no_terminal_and_everything_is_flushed_at_the_end";
    if std::env::var_os(CHILD).is_some() {
        let (logger, guard) = log::logger(&config(), counter());
        log::log_panics(&logger);
        for n in 0..500 {
            info!(logger, "line"; "n" => n);
        }
        assert!(std::thread::spawn(|| panic!("on\npurpose")).join().is_err());
        drop(guard);
        std::process::exit(0);
    }
    let out = child_of(NAME).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 501, "{text}");
    assert!(
        lines[..500]
            .iter()
            .enumerate()
            .all(|(n, line)| line["n"] == n)
    );
    assert_eq!(lines[500]["msg"], "a thread panicked");
    assert_eq!(lines[500]["error"], "on\\npurpose");
}
