//! `ftpulse run`: the service, until SIGTERM or SIGINT (drained: exit 0) or until it cannot heal
//! itself (exit 70). A second signal ends it at once (128 + n). SIGHUP has it read its
//! configuration anew.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use slog::{Logger, info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigFile, EXIT_ESCALATED, EXIT_FAILED, Global, watchdog};
use crate::app::{self, End, Rereading};
use crate::config::{Config, Faults, Loaded};
use crate::core::assist::Terms;
use crate::core::names::RestartReason;
use crate::log;
use crate::metrics::Metrics;
use crate::watchdog::counts::{Counts, FILE};
use crate::watchdog::service::{Watched, Watcher};

/// Run the service: watch the spools, deliver what appears in them, never stay stuck.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  FTPULSE__ROUTES__MAIN__SPOOL=/spool \\
  FTPULSE__ROUTES__MAIN__SERVER=ftpes://user@ftp.example.net/incoming \\
  FTPULSE__ROUTES__MAIN__PASSWORD_FILE=/run/secrets/ftp \\
  ftpulse run")]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// Under a watchdog of its own: a second small process that starts this one again when it dies
    /// or falls silent. Works as PID 1.
    #[arg(long)]
    watchdog: bool,

    /// After the loss of the journal: send the files of routes with after = "keep" again.
    #[arg(long)]
    accept_resend: bool,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: Arguments) -> ExitCode {
    if arguments.watchdog {
        return watchdog::service(global, arguments.file, arguments.accept_resend);
    }
    let load = {
        let file = arguments.file.clone();
        move || {
            let mut loaded = file.clone().read()?;
            loaded.config.log.level = global.level(loaded.config.log.level);
            Ok(loaded)
        }
    };
    match arguments.file.load() {
        Ok(mut loaded) => {
            loaded.config.log.level = global.level(loaded.config.log.level);
            loaded.config.accept_resend = arguments.accept_resend;
            serve(loaded.config, &loaded.warnings, Arc::new(load))
        }
        Err(code) => code,
    }
}

/// The metrics of a service with this configuration.
pub fn metrics_of(config: &Config) -> Metrics {
    let routes: Vec<&str> = config.routes.keys().map(String::as_str).collect();
    let revision = option_env!("FTPULSE_REVISION").unwrap_or("unknown");
    Metrics::new(&routes, env!("CARGO_PKG_VERSION"), revision)
}

type Load = Arc<dyn Fn() -> Result<Loaded, Faults> + Send + Sync>;

fn serve(config: Config, warnings: &[String], load: Load) -> ExitCode {
    let metrics = metrics_of(&config);
    let (logger, guard) = log::logger(&config.log, metrics.log_dropped().clone());
    log::log_panics(&logger);
    for warning in warnings {
        warn!(logger, "configuration"; "error" => warning, "next" => "the service goes on with it");
    }
    let level = guard.level();
    info!(logger, "starting"; "version" => env!("CARGO_PKG_VERSION"),
        "routes" => config.routes.len(), "next" => "folders are locked and watched");
    // Before anything slow: whoever watches hears of a start that takes its time.
    let watched = begin_telling(&config, &logger);
    tell_restarts(&config, &metrics, &logger);
    let (told, log) = (watched.clone(), logger.clone());
    let ended = actix_rt::System::new().block_on(async move {
        let deaf = |e| format!("cannot listen to signals: {e}");
        let stop = signals().map_err(deaf)?;
        let rereading = Rereading {
            load,
            signal: signal(SignalKind::hangup()).map_err(deaf)?,
            level: Box::new(move |to| level.set(to)),
        };
        app::run_rereading(config, metrics, log, stop, rereading, told).await
    });
    let code = match ended {
        Ok(End::Done) => 0,
        Ok(End::Escalated) => EXIT_ESCALATED,
        Err(error) => {
            watched.status(&error);
            slog::crit!(logger, "the service cannot run"; "error" => error,
                "next" => "it ends; nothing was touched");
            EXIT_FAILED
        }
    };
    watched.end();
    drop(guard);
    // Threads that cannot end (a hung disk, a look-up) must not hold the process.
    std::process::exit(code.into());
}

/// Begins to tell whoever watches this process, if somebody does.
fn begin_telling(config: &Config, logger: &slog::Logger) -> Watched {
    let watcher = Watcher::of_environment().unwrap_or_else(|why| {
        warn!(logger, "no watchdog is told"; "error" => why, "next" => "the service runs without");
        None
    });
    let set = config.watchdog;
    // The guard judges by the settings of its own start.
    let told = watcher.as_ref().and_then(Watcher::intervals);
    let (pulse, software) = told.unwrap_or((set.pulse_interval, set.software_interval));
    let terms = |demanded| Terms::new(pulse, software, demanded, config.timers.compute);
    Watched::by(watcher, terms, logger)
}

/// How often a watchdog has started this service again, as it has written down.
fn tell_restarts(config: &Config, metrics: &Metrics, logger: &Logger) {
    let path = config.state_dir.join(FILE);
    match Counts::read(&path) {
        Ok(counts) => {
            for &reason in RestartReason::ALL {
                metrics.watchdog_restarts(reason).inc_by(counts.of(reason));
            }
        }
        Err(error) => warn!(logger, "restart counts cannot be read";
            "path" => path.display().to_string(), "error" => error,
            "next" => "ftpulse_watchdog_restarts_total begins at 0"),
    }
}

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once.
pub fn signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        either(&mut term, &mut int).await;
        actix::spawn(async move {
            let number = either(&mut term, &mut int).await;
            std::process::exit(128 + number);
        });
    })
}

async fn either(term: &mut Signal, int: &mut Signal) -> i32 {
    tokio::select! {
        _ = term.recv() => libc::SIGTERM,
        _ = int.recv() => libc::SIGINT,
    }
}
