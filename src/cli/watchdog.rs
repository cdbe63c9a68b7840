//! `ftpulse watchdog`, and `ftpulse run --watchdog`: ring 2 alone, in a process of its own with
//! neither actix nor a thread but the log's. Whatever the start has allocated is given back: a guard
//! that has to be there when memory is short is small.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use prometheus::IntCounter;
use slog::{crit, warn};

use super::{ConfigFile, EXIT_FAILED, EXIT_USAGE, Global, complain};
use crate::config::{self, Config, Sources};
use crate::core::watch::Terms;
use crate::log;
use crate::sys::memory;
use crate::sys::process::Signals;
use crate::watchdog::counts::{Book, FILE};
use crate::watchdog::guard::{self, Program, Setup};

/// Start a program, watch its beats, and start it again when it dies or falls silent.
///
/// Any program that speaks sd_notify can be watched: it gets NOTIFY_SOCKET and WATCHDOG_USEC, sends
/// READY=1 when it is ready and WATCHDOG=1 as its beat. Without CMD it is this program's `run`.
/// Exit code 0 ends the watch, as does 2 before READY=1; anything else is a reason to start it
/// again. SIGTERM and SIGINT are passed on, and so is the exit code. Works as PID 1 of a container.
/// The settings are `watchdog.*`, `shutdown.grace`, `log.*` and `state.dir`, read once at the start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ftpulse watchdog --config /etc/ftpulse.toml
  FTPULSE__WATCHDOG__INTERVAL=1s FTPULSE__WATCHDOG__WINDOW=6s \\
  ftpulse watchdog -- /usr/local/bin/my-daemon --foreground")]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// The program and its arguments.
    #[arg(value_name = "CMD", last = true)]
    command: Vec<OsString>,
}

/// How long the program's own drain may exceed `shutdown.grace`. Together with the default grace it
/// stays below the 10 s after which container engines kill.
const AFTER_GRACE: Duration = Duration::from_millis(1500);

/// Runs the subcommand.
pub fn main(global: Global, arguments: Arguments) -> ExitCode {
    if arguments.command.is_empty() {
        return service(global, arguments.file, false);
    }
    let sources = Sources::of_process(arguments.file.config);
    let loaded = match config::load_without_routes(sources) {
        Ok(loaded) => loaded,
        Err(faults) => return refuse(&faults),
    };
    let name = arguments.command.first().map(Path::new);
    let name = name.and_then(Path::file_name).unwrap_or_default();
    // Not the service's file, whose counts it shows as its own.
    let file = format!("watchdog-{}.json", name.to_string_lossy());
    let program = Program {
        path: arguments.command.first().cloned().unwrap_or_default(),
        argv: arguments.command,
        once: None,
        own: false,
    };
    watch(global, loaded.config, &loaded.warnings, program, &file)
}

/// Watches this program's own `run`, whose other arguments these are.
pub fn service(global: Global, file: ConfigFile, accept_resend: bool) -> ExitCode {
    let mut argv: Vec<OsString> = vec!["ftpulse".into(), "run".into()];
    if global.quiet {
        argv.push("--quiet".into());
    }
    argv.extend((0..global.verbose).map(|_| "--verbose".into()));
    if let Some(path) = &file.config {
        argv.extend(["--config".into(), path.into()]);
    }
    // All of it is read: a route that is wrong would stop the service anyway, and here it is told
    // before anything is started.
    let loaded = match config::load(Sources::of_process(file.config)) {
        Ok(loaded) => loaded,
        Err(faults) => return refuse(&faults),
    };
    let program = Program {
        path: own_path().into(),
        argv,
        // A journal that is lost later is another matter.
        once: accept_resend.then(|| "--accept-resend".into()),
        own: true,
    };
    // Its warnings are the service's to tell.
    watch(global, loaded.config, &[], program, FILE)
}

fn refuse(faults: &config::Faults) -> ExitCode {
    complain(&faults.to_string());
    ExitCode::from(EXIT_USAGE)
}

/// This very program, under its own name where that still leads to it.
fn own_path() -> PathBuf {
    const LINK: &str = "/proc/self/exe";
    let id = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    let named = std::fs::read_link(LINK).ok();
    let named = named.filter(|path| id(path).is_some() && id(path) == id(Path::new(LINK)));
    named.unwrap_or_else(|| LINK.into())
}

fn terms(config: &Config) -> Terms {
    let watchdog = &config.watchdog;
    Terms {
        interval: watchdog.interval,
        misses: watchdog.misses,
        window: watchdog.window,
        required: watchdog.beats_required,
        start_timeout: watchdog.start_timeout,
        pulse_interval: watchdog.pulse_interval,
        software_interval: watchdog.software_interval,
        kind_misses: watchdog.kind_misses,
        stop_bound: config.shutdown_grace + AFTER_GRACE,
    }
}

fn watch(
    global: Global,
    config: Config,
    warnings: &[String],
    program: Program,
    file: &str,
) -> ExitCode {
    // Before any thread, so that none of them is interrupted by what is read from the descriptor.
    let signals = match Signals::take_over() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!(
                "the system gives no signals to the watchdog: {error}"
            ));
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let mut settings = config.log.clone();
    settings.level = global.level(settings.level);
    // Nobody asks the watchdog for metrics: what it cannot write it tells in the log.
    let Ok(dropped) = IntCounter::new("dropped", "Log lines dropped.") else {
        return ExitCode::from(EXIT_FAILED);
    };
    let (logger, log_guard) = log::logger(&settings, dropped);
    log::log_panics(&logger);
    for warning in warnings {
        warn!(logger, "configuration"; "error" => warning, "next" => "the watchdog goes on with it");
    }
    let setup = Setup {
        terms: terms(&config),
        program,
        book: Some(Book::new(config.state_dir.join(file))),
    };
    drop(config);
    memory::shed();
    let code = match guard::run(setup, &signals, &logger) {
        Ok(code) => code,
        Err(error) => {
            crit!(logger, "the watchdog cannot work"; "error" => error.to_string(),
                "next" => "it ends, and the program with it");
            EXIT_FAILED
        }
    };
    drop(log_guard);
    // A thread that hangs on a disk must not hold the process.
    std::process::exit(code.into());
}
