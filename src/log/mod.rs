//! Logging: structured records to standard error, one line each, as text or JSON.
//! A line is made on the caller's thread (so its time is the event's) and written by a thread of
//! its own; the caller never waits. A line that finds the queue full, or cannot be written, is
//! dropped and counted. Whatever a fact contains, no control or bidirectional character of it
//! reaches the reader. The exit waits for the queue only for a bounded time.

mod escape;
mod line;
mod sentence;

pub use escape::{chain, escape, escape_bytes, escape_reply};
pub use line::{Form, sealed};

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use prometheus::IntCounter;
use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, b, o};
use slog_async::{AsyncCore, AsyncGuard};

use crate::clock;
use crate::config::{self, LogFormat};

/// Lines that may wait for standard error. A burst (every slot of many routes reset at once
/// logs some ten lines a slot) fits; at a few hundred bytes a line it is under 1 MiB.
const QUEUE: usize = 1024;

/// How long the exit waits for the queued lines. A reader that is alive takes 1024 lines in
/// milliseconds; one that is not must not hold the exit, and `shutdown.grace` goes on running.
const FLUSH: Duration = Duration::from_secs(2);

/// The service's logger, to standard error. Lines that are lost are counted in `dropped`.
/// Keep the guard until the last line is logged.
pub fn logger(config: &config::Log, dropped: IntCounter) -> (Logger, Guard) {
    logger_to(Stderr, stderr_form(config.format), config.level, dropped)
}

/// The same, to any writer. Only the log's own thread calls it; it may block.
pub fn logger_to(
    out: impl Write + Send + 'static,
    form: Form,
    level: Level,
    dropped: IntCounter,
) -> (Logger, Guard) {
    let lost = Arc::new(AtomicU64::new(0));
    let writer = Writer {
        out: RefCell::new(out),
        form,
        dropped: dropped.clone(),
        lost: lost.clone(),
    };
    let (queue, guard) = AsyncCore::custom(writer)
        .chan_size(QUEUE)
        .thread_name("log".to_owned())
        .build_with_guard();
    let drain = Lines {
        queue,
        form,
        dropped,
        lost,
        no_values: o!().into(),
    };
    let level = LevelSwitch(Arc::new(AtomicUsize::new(level.as_usize())));
    let switched = level.clone();
    let drain = drain.filter(move |record| switched.lets_pass(record.level()));
    let logger = Logger::root(drain.fuse(), o!());
    let inner = Some(guard);
    (logger, Guard { inner, level })
}

/// Logs panics instead of writing them to standard error from the panicking thread: that write
/// blocks when nobody reads. Replaces the process's panic hook.
pub fn log_panics(logger: &Logger) {
    let logger = logger.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or(payload.downcast_ref::<&str>().copied())
            .unwrap_or("no text");
        let at = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
            _ => "set RUST_BACKTRACE=1 to see it".to_owned(),
        };
        slog::crit!(logger, "a thread panicked";
            "error" => &*escape(text), "at" => at,
            "thread" => thread.name().unwrap_or("unnamed"), "backtrace" => backtrace,
            "next" => "its actor or worker is replaced; please report this as a bug");
    }));
}

/// Holds the log's thread; dropping it writes what is queued, for at most two seconds.
/// What is logged later is counted as dropped.
#[must_use = "dropping the guard ends the log"]
pub struct Guard {
    inner: Option<AsyncGuard>,
    level: LevelSwitch,
}

impl Guard {
    /// What sets the level while the log is written.
    pub fn level(&self) -> LevelSwitch {
        self.level.clone()
    }
}

/// The level of a logger that is in use.
#[derive(Debug, Clone)]
pub struct LevelSwitch(Arc<AtomicUsize>);

impl LevelSwitch {
    /// From here on lines of this level and the graver ones are written.
    pub fn set(&self, level: Level) {
        self.0.store(level.as_usize(), Ordering::Relaxed);
    }

    fn lets_pass(&self, level: Level) -> bool {
        level.as_usize() <= self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        // slog-async's own guard waits without a bound, so it does that on a thread nobody joins.
        // Not dropped where that thread cannot be made: its drop would wait here.
        let inner = ManuallyDrop::new(inner);
        let (flushed, done) = mpsc::channel();
        let helper = std::thread::Builder::new().name("log-flush".to_owned());
        let spawned = helper.spawn(move || {
            drop(ManuallyDrop::into_inner(inner));
            // Nobody may be waiting any more.
            let _ = flushed.send(());
        });
        if spawned.is_ok() {
            let _ = done.recv_timeout(FLUSH);
        }
    }
}

/// The caller's side: makes the line, queues or counts it.
struct Lines {
    queue: AsyncCore,
    form: Form,
    dropped: IntCounter,
    lost: Arc<AtomicU64>,
    no_values: OwnedKVList,
}

impl Drain for Lines {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, values: &OwnedKVList) -> Result<(), Never> {
        let line = self.form.line(record, values, clock::unix());
        let origin = slog::record_static!(record.level(), "");
        let queued = self.queue.log(
            &Record::new(&origin, &format_args!("{line}"), b!()),
            &self.no_values,
        );
        if queued.is_err() {
            self.dropped.inc();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The log thread's side: writes lines, and says how many were lost once there is room again.
struct Writer<W> {
    out: RefCell<W>,
    form: Form,
    dropped: IntCounter,
    lost: Arc<AtomicU64>,
}

impl<W: Write> Writer<W> {
    /// Whether the line was written.
    fn write(&self, line: &str) -> bool {
        let mut out = self.out.borrow_mut();
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .is_ok()
    }

    fn report_lost(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = self.form.line(
                &slog::record!(
                    Level::Warning,
                    "",
                    &format_args!("log lines dropped"),
                    b!("count" => lost,
                       "next" => "lines are written again; ftpulse_log_dropped_total counts on")
                ),
                &o!().into(),
                clock::unix(),
            );
            if !self.write(&line) {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }
}

impl<W: Write> Drain for Writer<W> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, _: &OwnedKVList) -> Result<(), Never> {
        self.report_lost();
        if !self.write(&record.msg().to_string()) {
            self.dropped.inc();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Standard error without std's lock, which a write to a full pipe would hold against everyone.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::io::{Errno, write};
        let stderr = io::stderr();
        loop {
            match write(stderr.as_fd(), bytes) {
                // Whoever shares the descriptor may have made it non-blocking.
                Err(Errno::AGAIN) => {
                    match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                Err(Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The form that fits where standard error goes; colors only for a terminal that wants them
/// (no-color.org: any non-empty `NO_COLOR` turns them off).
fn stderr_form(format: LogFormat) -> Form {
    let terminal = io::stderr().is_terminal();
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let color = terminal && !set("NO_COLOR") && !dumb;
    match format {
        LogFormat::Auto if terminal => Form::Text { color },
        LogFormat::Auto | LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text { color },
    }
}
