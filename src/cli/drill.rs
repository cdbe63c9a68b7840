//! `ftpulse drill`: wedges uploads from the greeting to the rename, with the user's own heartbeat and timer
//! settings, and shows what was found, named, delivered, and how long an upload was stuck. One
//! service, one route and one faulty server for each row, all on loopback and in a folder that is
//! removed; the user's routes are not touched.

mod matrix;
mod row;
mod table;
mod watch;
mod wedge;

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use slog::{Level, Logger};
use tokio::sync::oneshot;

use self::matrix::Way;
use self::row::{Outcome, Stand};
use self::table::{Progress, Report};
use super::client::Client;
use super::look::Look;
use super::signals::Signals;
use super::stage::{self, Offer};
use super::tap::{Note, Tap};
use super::{ConfigFile, EXIT_FAILED, EXIT_USAGE, Global, complain, run, show};
use crate::app;
use crate::clock::{Mono, mono};
use crate::config::{self, Config, Sources};
use crate::log::{self, Form};
use crate::pulse::Sabotage;
use crate::report::{SlotStatus, Status};

/// Log lines that may wait for one row, which takes each at once; a file has some ten in its life.
const NOTES: usize = 1024;
/// What the rows' files take to flow, beside the bounds of their faults.
const FLOW: Duration = Duration::from_secs(10);

/// Wedge uploads from the greeting to the rename and see what your settings make of it.
///
/// Runs the real service against embedded FTP servers, one for each fault, with the heartbeat,
/// timer, retry and quarantine settings of your configuration (its routes are left alone). Shows
/// for each fault as what it was found, the cause that was named, after how long it was found and
/// the file delivered, whether a torn file was ever seen, how many bytes were sent again, and how
/// long the uploader was without a good beat. With the default settings it takes two minutes.
/// Over TLS and in active mode it drills their own faults too.
/// Ends with 1 if any row is not as it should be.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ftpulse drill
  ftpulse drill --tls
  ftpulse drill --fault stop-reading --config /etc/ftpulse.toml
  FTPULSE__TIMERS__REPLY=10s ftpulse drill --json
  ftpulse drill --fault help          lists the faults")]
pub struct Arguments {
    /// One fault, or all; `help` lists them.
    #[arg(long, value_name = "NAME", default_value = "all")]
    fault: String,
    /// Speak TLS (ftpes://) with the embedded servers.
    #[arg(long)]
    tls: bool,
    /// Let the embedded servers open the data connections (active mode).
    #[arg(long)]
    active: bool,
    /// Print a JSON document in place of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Runs the subcommand.
pub fn main(global: Global, arguments: Arguments) -> ExitCode {
    let user = match config::load_without_routes(Sources::of_process(arguments.file.config)) {
        Ok(loaded) => loaded.config,
        Err(faults) => {
            complain(&faults.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let way = Way {
        tls: arguments.tls,
        active: arguments.active,
    };
    let mut rows = matrix::rows(&user, way);
    if arguments.fault != "all" {
        if let Some(way_out) = way.missing(&arguments.fault) {
            complain(&format!("the fault {:?} {way_out}", arguments.fault));
            return ExitCode::from(EXIT_USAGE);
        }
        if !rows.iter().any(|r| r.name == arguments.fault) {
            return stage::list_faults("drill", &arguments.fault, &offers(&rows));
        }
        rows.retain(|r| r.name == arguments.fault);
    }
    // Before anything is made: a signal from here on ends the drill with its folder.
    let system = actix_rt::System::new();
    let signals = system.block_on(async { Signals::listen() });
    let signals = signals.map_err(|e| format!("cannot listen to signals: {e}"));
    let made = signals.and_then(|signals| Ok((signals, stage::temporary("drill")?)));
    let (signals, dir) = match made {
        Ok(made) => made,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let drill = Drill {
        global,
        json: arguments.json,
        way,
        system,
        signals,
    };
    let report = drill.play(&user, rows, &dir);
    let removed = stage::remove(&dir);
    let code = match &report {
        Ok(report) => told(report, arguments.json),
        Err(error) => {
            complain(error);
            ExitCode::from(EXIT_FAILED)
        }
    };
    if let Err(error) = &removed {
        complain(error);
    }
    // Threads that cannot end must not hold the process.
    std::process::exit(i32::from(code != ExitCode::SUCCESS));
}

fn offers(rows: &[matrix::Row]) -> Vec<Offer> {
    rows.iter()
        .map(|row| Offer {
            name: row.name,
            expected: row.expected,
            about: row.about,
        })
        .collect()
}

/// Writes the result; the exit code of the drill.
fn told(report: &Report, json: bool) -> ExitCode {
    let text = if json {
        serde_json::to_string_pretty(report).map(|text| text + "\n")
    } else {
        Ok(report.text(Look::of_stdout()))
    };
    match text {
        Err(error) => {
            complain(&format!("the result cannot be written: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
        Ok(text) if report.ok => show(&text),
        Ok(text) => {
            show(&text);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// What a drill runs with.
struct Drill {
    global: Global,
    json: bool,
    way: Way,
    system: actix_rt::SystemRunner,
    signals: Signals,
}

impl Drill {
    /// Runs all rows; their outcomes in the order of the matrix.
    fn play(self, user: &Config, rows: Vec<matrix::Row>, dir: &Path) -> Result<Report, String> {
        let Self {
            global,
            json,
            way,
            system,
            signals,
        } = self;
        let names: Vec<_> = rows.iter().map(|r| r.name).collect();
        let (mut stands, mut listeners) = (Vec::new(), HashMap::new());
        for (number, row) in rows.into_iter().enumerate() {
            let (tell, told) = sync_channel(NOTES);
            let name = row.name;
            let stand = Stand::make(row, way, number, dir, told)
                .map_err(|e| format!("the stand of {name} cannot be made: {e}"))?;
            listeners.insert(stand.route().to_owned(), tell);
            stands.push(stand);
        }
        let config = settings(user, &stands, dir)?;
        let metrics = run::metrics_of(&config);
        let level = if global.verbose > 0 {
            Level::Debug
        } else {
            Level::Critical
        };
        let (logger, guard) = log::logger_to(
            io::stderr(),
            Form::Text { color: false },
            level,
            metrics.log_dropped().clone(),
        );
        log::log_panics(&logger);
        let listeners: Listeners = Arc::new(Mutex::new(listeners));
        let logger = Logger::root(tap(logger, Arc::clone(&listeners)), slog::o!());
        let sabotage = Sabotage::default();
        let (listening_in, listening) = sync_channel(1);
        let (finish, finished) = oneshot::channel();
        let quiet = global.quiet || json || global.verbose > 0 || !io::stderr().is_terminal();
        let conductor = {
            let (config, sabotage, names) = (config.clone(), sabotage.clone(), names.clone());
            let conduct = move || {
                conduct(
                    stands, &config, &sabotage, &listening, &names, quiet, finish,
                )
            };
            std::thread::Builder::new()
                .name("drill".into())
                .spawn(conduct)
        };
        let conductor = conductor.map_err(|e| format!("cannot start a thread: {e}"))?;
        let place = dir.to_owned();
        let ended = system.block_on(async {
            actix::spawn(end_by_signal(signals, place));
            let stop = async {
                // A conductor that is gone counts as one that has ended.
                let _ = finished.await;
            };
            let told = move |address| {
                // Nobody listens any more where the conductor is gone.
                let _ = listening_in.send(address);
            };
            app::run_sabotaged(config, metrics, logger, stop, told, sabotage).await
        });
        drop(guard);
        // Rows that still wait learn that nobody tells them anything any more.
        forget(&listeners);
        ended?;
        let outcomes = conductor
            .join()
            .map_err(|_| "the drill itself failed; -v tells more".to_owned())??;
        Ok(Report::new(outcomes))
    }
}

/// The rows, by the routes that they listen to.
type Listeners = Arc<Mutex<HashMap<String, SyncSender<(Mono, Note)>>>>;

fn forget(listeners: &Listeners) {
    let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.clear();
}

/// What the service logs, sent to the row whose route it names.
fn tap(logger: Logger, listeners: Listeners) -> Tap<impl Fn(Note) + Send + Sync> {
    Tap::new(logger, move |note: Note| {
        let now = mono();
        let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = listeners.get(note.fact("route")) {
            // A row that is over listens no more.
            let _ = tell.try_send((now, note));
        }
    })
}

/// The user's settings with the rows' routes. The process's own environment is in `user` already.
fn settings(user: &Config, stands: &[Stand], dir: &Path) -> Result<Config, String> {
    let mut env: Vec<(String, String)> = vec![
        (
            "state.dir".into(),
            dir.join("state").to_string_lossy().into_owned(),
        ),
        ("http.listen".into(), "127.0.0.1:0".into()),
        ("shutdown.grace".into(), "4s".into()),
        (
            "quarantine.capacity".into(),
            stands.len().max(1).to_string(),
        ),
    ];
    for stand in stands {
        for (leaf, value) in stand.settings() {
            env.push((format!("routes.{}.{leaf}", stand.route()), value));
        }
    }
    let env = env
        .into_iter()
        .map(|(key, value)| (config::keys::variable(&key).into(), value.into()))
        .collect();
    let own = config::load(Sources { file: None, env }).map_err(|faults| faults.to_string())?;
    let mut config = own.config;
    config.heartbeat = user.heartbeat.clone();
    config.timers = user.timers.clone();
    config.retry = user.retry.clone();
    config.quarantine = user.quarantine.clone();
    // All rows are wedged at once here, which is not what the limits of one service are for.
    config.quarantine.capacity = user.quarantine.capacity.max(stands.len());
    let stranded = u32::try_from(stands.len()).unwrap_or(u32::MAX);
    config.heartbeat.max_stranded_workers = user.heartbeat.max_stranded_workers.max(stranded);
    Ok(config)
}

/// Runs the rows once the service stands: all at once, then those that need the machine.
fn conduct(
    stands: Vec<Stand>,
    config: &Config,
    sabotage: &Sabotage,
    listening: &Receiver<SocketAddr>,
    names: &[&str],
    quiet: bool,
    finish: oneshot::Sender<()>,
) -> Result<Vec<Outcome>, String> {
    let address = listening
        .recv()
        .map_err(|_| "the service did not start".to_owned())?;
    let client = Client::at(address);
    let (alone, together): (Vec<_>, Vec<_>) = stands.into_iter().partition(|s| s.row().alone());
    let longest = |stands: &[Stand]| {
        stands
            .iter()
            .map(|s| s.row().bound + config.retry.first + FLOW)
            .max()
    };
    let about = longest(&together).unwrap_or_default() + longest(&alone).unwrap_or_default();
    let progress = Progress::new(names.len(), about, quiet);
    let mut outcomes = Vec::new();
    for group in [together, alone] {
        let routes: Vec<_> = group.iter().map(|s| s.route().to_owned()).collect();
        let mut done = run_all(group, config, sabotage, &progress);
        let policy = config.heartbeat.policy();
        // Found, the successor started and two of its beats: and what a busy machine adds.
        let limit = policy.detection() + policy.interval * 3 + FLOW;
        let stuck = stuck(&client, limit)?;
        for (outcome, route) in done.iter_mut().zip(&routes) {
            if let Some(seconds) = stuck.get(route) {
                outcome.was_stuck(*seconds, limit);
            }
        }
        outcomes.extend(done);
    }
    progress.end();
    // The service may have ended by itself.
    let _ = finish.send(());
    outcomes.sort_by_key(|o| names.iter().position(|n| *n == o.fault));
    Ok(outcomes)
}

/// In the order of `stands`.
fn run_all(
    stands: Vec<Stand>,
    config: &Config,
    sabotage: &Sabotage,
    progress: &Progress,
) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let running: Vec<_> = stands
            .into_iter()
            .map(|stand| {
                scope.spawn(move || {
                    let outcome = stand.run(config, sabotage);
                    progress.done(&outcome);
                    outcome
                })
            })
            .collect();
        // A row that panics takes the drill with it: there is nothing to show for it.
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// The longest silence of each route's uploader, seconds; asked until every one of them has had a
/// good beat again, for at most `bound`.
fn stuck(client: &Client, bound: Duration) -> Result<HashMap<String, f64>, String> {
    let began = mono();
    loop {
        let asked = client.status();
        let since = mono().saturating_sub(began);
        match asked {
            // A machine that is busy with forty rows may answer late.
            Err(failure) if since >= bound => return Err(failure.text),
            Err(_) => {}
            Ok(status) if since >= bound || all_beat(&status, since) => {
                let longest = |slots: &[SlotStatus]| {
                    let each = slots.iter().map(|s| s.longest_silence_seconds);
                    each.fold(0.0, f64::max)
                };
                let routes = status.routes.iter();
                return Ok(routes
                    .map(|r| (r.name.clone(), longest(&r.slots)))
                    .collect());
            }
            Ok(_) => {}
        }
        // No event tells of a good beat; nobody waits for this thread.
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Whether every slot has had a good beat in that time.
fn all_beat(status: &Status, since: Duration) -> bool {
    let mut slots = status.routes.iter().flat_map(|route| &route.slots);
    slots.all(|slot| slot.silence_seconds < since.as_secs_f64())
}

/// The first signal ends the drill, its folder too.
async fn end_by_signal(mut signals: Signals, dir: PathBuf) {
    let number = signals.next().await;
    if let Err(error) = stage::remove(&dir) {
        complain(&error);
    }
    std::process::exit(128 + number);
}
