//! `ftpulse demo`: the real service against an embedded FTP server that misbehaves, told as it
//! happens. It listens on loopback only, writes below one folder, removes nothing that it did not
//! make, and ends with 1 if a file did not come through whole.

mod cast;
mod narrate;
mod place;
mod story;
mod summary;
mod tell;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{SyncSender, sync_channel};

use clap::Args;
use slog::{Level, Logger, warn};
use tokio::sync::oneshot;

use self::place::Place;
use self::story::{Play, Story};
use self::tell::Tell;
use super::signals::Signals;
use super::stage::{self, Offer};
use super::tap::{Note, Tap};
use super::{EXIT_FAILED, EXIT_USAGE, Global, complain, run};
use crate::app::{self, End};
use crate::config::{self, Loaded, LogFormat, Sources};
use crate::core::names::Cause;
use crate::lab::{Expected, Fault, LabServer, Named, Needs, Script, Tls};
use crate::log::{self, Form, Guard};
use crate::metrics::Metrics;

/// Wedges when nothing else is asked for: one more than the quarantine has places.
const ROUNDS: u32 = 3;
/// Events that may wait for the story, which takes each in well under a millisecond; a burst of
/// every slot being reset is a few dozen.
const QUEUE: usize = 4096;

/// Watch the service at work: an FTP server that misbehaves, wedged uploads, their recovery.
///
/// Starts an embedded FTP server and the real service on loopback, drops files into its spool and
/// wedges one upload after the other. On a terminal it then goes on with a file every few seconds
/// until Ctrl-C; otherwise, or with --rounds, it ends by itself. Ends with 1 if a file was not
/// delivered whole.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ftpulse demo
  ftpulse demo --fault silent-226 --rounds 1
  ftpulse demo --fault help          lists the faults")]
pub struct Arguments {
    /// What the server does wrong; `help` lists all faults.
    #[arg(long, value_name = "NAME", default_value = "stop-reading")]
    fault: String,
    /// Work in this folder (new, empty, or of an earlier demo) and keep it; otherwise in a
    /// temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End after so many wedges.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: Option<u32>,
}

/// What the story is told.
enum Event {
    /// All stands; the HTTP side listens there.
    Listening(SocketAddr),
    /// The service has logged this.
    Note(Note),
    /// A signal asks for the end.
    Stopping,
    /// The service has ended, or could not start.
    Ended(Result<End, String>),
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: Arguments) -> ExitCode {
    let Some(named) = faults().find(|n| n.name == arguments.fault) else {
        return stage::list_faults("demo", &arguments.fault, &offers());
    };
    let place = match Place::open(arguments.dir.as_deref()) {
        Ok(place) => place,
        Err(refusal) => {
            complain(&refusal.reason);
            return ExitCode::from(if refusal.usage {
                EXIT_USAGE
            } else {
                EXIT_FAILED
            });
        }
    };
    let played = play(global, &arguments, named, &place);
    let removed = place.clean_up();
    if let Err(error) = &played {
        complain(error);
    }
    if let Err(error) = &removed {
        complain(error);
    }
    let code = if played == Ok(true) && removed.is_ok() {
        0
    } else {
        EXIT_FAILED
    };
    // Threads that cannot end must not hold the process.
    std::process::exit(code.into());
}

/// Plays the demo; whether every file came through whole.
fn play(
    global: Global,
    arguments: &Arguments,
    named: &'static Named,
    place: &Place,
) -> Result<bool, String> {
    let script = match named.needs {
        Needs::Tls => Script::healthy().over(Tls::explicit()),
        _ => Script::healthy(),
    };
    let lab = LabServer::start(place.server(), script)
        .map_err(|e| format!("the embedded FTP server cannot start: {e}"))?;
    if let Some(ca) = lab.ca() {
        std::fs::write(place.ca(), ca)
            .map_err(|e| format!("cannot write {}: {e}", place.ca().display()))?;
    }
    let loaded = settings(&lab, named, place)?;
    let metrics = run::metrics_of(&loaded.config);
    let (logger, guard) = log_of(global, place, &metrics)?;
    log::log_panics(&logger);
    for warning in &loaded.warnings {
        warn!(logger, "configuration"; "error" => warning, "next" => "the demo goes on with it");
    }
    let (events, told) = sync_channel(QUEUE);
    let (finish, finished) = oneshot::channel();
    let terminal = io::stdout().is_terminal();
    let story = Story::new(Play {
        tell: Tell::new(global.quiet),
        named,
        rounds: arguments.rounds.unwrap_or(ROUNDS),
        endless: terminal && arguments.rounds.is_none(),
        place: place.clone(),
        log_shown: global.verbose > 0,
        settings: loaded.settings,
        misses: loaded.config.heartbeat.misses,
        metrics: metrics.clone(),
        lab,
        events: told,
        finish,
    });
    let teller = std::thread::Builder::new().name("story".into());
    let teller = teller
        .spawn(move || story.tell())
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let tell = events.clone();
    // A note that finds the queue full is lost to the story, not to the log.
    let tap = Tap::new(logger, move |note| drop(tell.try_send(Event::Note(note))));
    let tapped = Logger::root(tap, slog::o!());
    let listening = events.clone();
    let ended = actix_rt::System::new().block_on(async {
        let stop = until(finished, events.clone(), place.clone())
            .map_err(|e| format!("cannot listen to signals: {e}"))?;
        let listening = move |address| drop(listening.send(Event::Listening(address)));
        app::run(loaded.config, metrics, tapped, stop, listening).await
    });
    // A story that is gone has panicked; the join says so.
    drop(events.send(Event::Ended(ended)));
    let whole = teller.join().map_err(|_| {
        format!(
            "the demo itself failed; {} tells why",
            place.log().display()
        )
    })?;
    drop(guard);
    Ok(whole)
}

/// The settings of the demo, checked like any other configuration. The process's own environment
/// is left out: it may name real routes.
fn settings(lab: &LabServer, named: &Named, place: &Place) -> Result<Loaded, String> {
    // A server that is late, not stuck, must be given more time than it takes; and a dead path is
    // found by the heartbeat, after the kernel's own probes.
    let dead_path = named.cause == Some(Cause::PathDead);
    let reply = if dead_path || named.expected == Expected::Success {
        "10s"
    } else {
        "3s"
    };
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let mode = match named.needs {
        Needs::Active => "active",
        _ => "passive",
    };
    let mut env: Vec<(String, String)> = [
        ("routes.demo.spool", path(place.spool())),
        ("routes.demo.server", lab.url("incoming")),
        ("routes.demo.password", lab.password().to_owned()),
        ("routes.demo.mode", mode.to_owned()),
        // For a file that is copied, not renamed, into the spool, and one that is there already.
        ("routes.demo.settle", "500ms".to_owned()),
        ("state.dir", path(place.state())),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("heartbeat.interval", "500ms".to_owned()),
        ("heartbeat.misses", "3".to_owned()),
        ("timers.stall", "2s".to_owned()),
        ("timers.reply", reply.to_owned()),
        ("timers.control_connect", "3s".to_owned()),
        ("timers.control_connect_interval", "200ms".to_owned()),
        ("timers.data_connect", "2s".to_owned()),
        ("timers.data_connect_attempts", "2".to_owned()),
        ("timers.data_connect_interval", "200ms".to_owned()),
        ("timers.tls", "3s".to_owned()),
        ("timers.listen", "3s".to_owned()),
        ("timers.idle_session", "1s".to_owned()),
        ("quarantine.capacity", "2".to_owned()),
        ("quarantine.hold", "1m".to_owned()),
        ("retry.first", "500ms".to_owned()),
        ("retry.max", "2s".to_owned()),
        ("retry.jitter", "0".to_owned()),
        ("shutdown.grace", "4s".to_owned()),
    ]
    .map(|(key, value)| (config::keys::variable(key), value))
    .into();
    if named.needs == Needs::Tls {
        env.push((
            config::keys::variable("routes.demo.ca_file"),
            path(place.ca()),
        ));
    }
    let env = env
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    config::load(Sources { file: None, env }).map_err(|faults| faults.to_string())
}

/// The service's log: into the demo's folder, so that the story stays readable; with `-v` to
/// standard error.
fn log_of(global: Global, place: &Place, metrics: &Metrics) -> Result<(Logger, Guard), String> {
    let dropped = metrics.log_dropped().clone();
    if global.verbose > 0 {
        let level = global.level(Level::Info);
        return Ok(log::logger(
            &config::Log {
                level,
                format: LogFormat::Auto,
            },
            dropped,
        ));
    }
    let path = place.log();
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path);
    let file = file.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(log::logger_to(
        file,
        Form::Text { color: false },
        Level::Debug,
        dropped,
    ))
}

/// Resolves at the story's end or at the first signal; the second one ends the process at once,
/// its temporary folder too.
fn until(
    finished: oneshot::Receiver<()>,
    events: SyncSender<Event>,
    place: Place,
) -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    Ok(async move {
        tokio::select! {
            // A story that is gone counts as one that has ended.
            _ = finished => {}
            _ = signals.next() => drop(events.send(Event::Stopping)),
        }
        actix::spawn(async move {
            let number = signals.next().await;
            drop(place.clean_up());
            std::process::exit(128 + number);
        });
    })
}

/// What can go wrong with an upload.
fn faults() -> impl Iterator<Item = &'static Named> {
    let all = Fault::names().iter().chain(Fault::others());
    all.filter(|named| named.needs != Needs::Download)
}

fn offers() -> Vec<Offer> {
    faults()
        .map(|n| Offer {
            name: n.name,
            expected: n.expected,
            about: n.about,
        })
        .collect()
}
