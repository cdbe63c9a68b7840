//! Wiring: which actor runs where, the order of the start, the order of the end. It holds the
//! locks and the timer thread; it decides nothing.

mod kept;
mod origin;
mod reload;
mod spools;
mod timer;
mod view;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, AsyncContext, Context};
use slog::{Logger, error, info, warn};
use tokio::sync::{oneshot, watch};

use self::kept::KeptJournal;
use self::origin::Origin;
pub use self::reload::Rereading;
use self::reload::{Asks, Reloader};
use self::timer::Timer;
use self::view::View;
use crate::actors::collector::{self, CollectorActor, RouteSpool};
use crate::actors::daemon::{DaemonActor, Over, Parts, Peers};
use crate::actors::journal::{self, JournalActor};
use crate::actors::messages::{Close, Drain, GetStatus};
use crate::actors::quarantine::SocketQuarantineActor;
use crate::clock;
use crate::config::Config;
use crate::core::ring::Limits;
use crate::core::timers;
use crate::http;
use crate::metrics::Metrics;
use crate::pulse::Sabotage;
use crate::spool::Clock;
use crate::spool::journal::{self as records, KeptRows};
use crate::spool::lock::FolderLock;
use crate::sys::fence;

/// What the end of a drained service may take on top: the quarantine's and the threads' end.
const CLOSE_BOUND: Duration = Duration::from_secs(2);

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order.
    Done,
    /// It has to be restarted (exit code 70).
    Escalated,
}

/// Runs the service until `stop` resolves and it has drained, or until it cannot heal. To be
/// called within an actix System. `listening` is told the HTTP address once all stands.
///
/// # Errors
/// A sentence that names what could not be had and the way out; nothing was sent then.
pub async fn run(
    config: Config,
    metrics: Metrics,
    log: Logger,
    stop: impl Future<Output = ()>,
    listening: impl FnOnce(std::net::SocketAddr),
) -> Result<End, String> {
    run_sabotaged(config, metrics, log, stop, listening, Sabotage::default()).await
}

/// The same with parts that a test can break (feature `lab`; nothing without it).
///
/// # Errors
/// As [`run`].
pub async fn run_sabotaged(
    config: Config,
    metrics: Metrics,
    log: Logger,
    stop: impl Future<Output = ()>,
    listening: impl FnOnce(std::net::SocketAddr),
    sabotage: Sabotage,
) -> Result<End, String> {
    let how = How {
        sabotage,
        rereading: None,
    };
    run_as(config, metrics, log, stop, listening, how).await
}

/// The same, with a configuration that can be read anew while it runs.
///
/// # Errors
/// As [`run`].
pub async fn run_rereading(
    config: Config,
    metrics: Metrics,
    log: Logger,
    stop: impl Future<Output = ()>,
    rereading: Rereading,
) -> Result<End, String> {
    let how = How {
        sabotage: Sabotage::default(),
        rereading: Some(rereading),
    };
    run_as(config, metrics, log, stop, |_| {}, how).await
}

/// What not every service has.
struct How {
    sabotage: Sabotage,
    rereading: Option<Rereading>,
}

async fn run_as(
    config: Config,
    metrics: Metrics,
    log: Logger,
    stop: impl Future<Output = ()>,
    listening: impl FnOnce(std::net::SocketAddr),
    how: How,
) -> Result<End, String> {
    let How {
        sabotage,
        rereading,
    } = how;
    let config = Arc::new(config);
    fence::install().map_err(|e| format!("cannot prepare this process: {e}"))?;
    std::fs::create_dir_all(&config.state_dir).map_err(|e| {
        let dir = config.state_dir.display();
        format!("cannot make the state folder {dir}: {e}; make it or set state.dir to another")
    })?;
    let _state = FolderLock::acquire(&config.state_dir, "state folder")
        .map_err(|e| crate::log::chain(&e))?;
    let mut stop = std::pin::pin!(stop);
    let Some(mut origin) = Origin::wait_for(&config, &log, stop.as_mut()).await? else {
        info!(log, "service ended before it began"; "next" => "the process ends");
        return Ok(End::Done);
    };
    let routes = spools::own(&config, &mut origin.journal)?;
    // Said before anything is sent; the server itself needs the service to stand.
    std::net::TcpListener::bind(config.http.listen).map_err(|e| {
        let listen = config.http.listen;
        format!("cannot listen on {listen}: {e}; stop what holds it, or set http.listen")
    })?;
    let mut service = Service::start(&config, origin, routes, &metrics, &log, sabotage)?;
    let token = http::Token::new(config.http.token.clone());
    let (holds, held) = watch::channel(Arc::clone(&config));
    let (reloads, reloader) = rereading
        .map(|how| service.reloader(how, token.clone(), holds, &log))
        .unzip();
    let source = Arc::new(service.view(reloads));
    let (server, address) =
        http::bind_with(config.http.listen, token, metrics, source, log.clone())
            .map_err(|e| crate::log::chain(&e))?;
    let reloading = reloader.map(|reloader| actix::spawn(reloader.serve()));
    let http = server.handle();
    let serving = actix::spawn(server);
    info!(log, "listening"; "address" => address.to_string(), "next" => "files are sent as they come");
    listening(address);
    let end = service.until_over(&held, stop, &log).await;
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    service.close(&log).await;
    let stopped = actix_rt::time::timeout(CLOSE_BOUND, async move {
        http.stop(true).await;
        let _ = serving.await;
    });
    if stopped.await.is_err() {
        warn!(log, "HTTP clients do not let go"; "next" => "they are cut off");
    }
    info!(log, "service ended"; "how" => format!("{end:?}"), "next" => "the process ends");
    Ok(end)
}

/// The actors of a running service.
struct Service {
    daemon: Addr<DaemonActor>,
    quarantine: Addr<SocketQuarantineActor>,
    collector: Addr<CollectorActor>,
    journal: Addr<JournalActor>,
    turned: Arc<AtomicU64>,
    problems: watch::Receiver<Vec<String>>,
    over: oneshot::Receiver<Over>,
    _timer: Timer,
}

type Actors = (
    Addr<DaemonActor>,
    Addr<SocketQuarantineActor>,
    Addr<CollectorActor>,
);

impl Service {
    fn start(
        config: &Arc<Config>,
        origin: Origin,
        mut routes: Vec<RouteSpool>,
        metrics: &Metrics,
        log: &Logger,
        sabotage: Sabotage,
    ) -> Result<Self, String> {
        let (tell, over) = oneshot::channel();
        let (problems_in, problems) = watch::channel(Vec::new());
        let turned = Arc::new(AtomicU64::new(clock::mono().as_millis() as u64));
        let (mut journal, drawer) = records::journal();
        if sabotage.forgoes_journal() {
            journal = records::Journal::none();
        }
        let Origin {
            agent,
            journal:
                KeptJournal {
                    store,
                    path,
                    unfinished,
                    sweeps,
                    kept,
                    no_resend,
                    incidents,
                },
        } = origin;
        for RouteSpool { route, rows, .. } in &mut routes {
            *rows = Some(KeptRows::new(&path, &route.name, journal.clone()));
        }
        let parts = {
            let journal = journal.clone();
            let (config, metrics, log) = (Arc::clone(config), metrics.clone(), log.clone());
            let (turned, sabotage) = (Arc::clone(&turned), sabotage.clone());
            move |peers| Parts {
                config,
                agent,
                peers,
                metrics,
                log,
                turned,
                problems: problems_in,
                over: Box::new(move |how| {
                    // Nobody waits any more: the service is over already.
                    let _ = tell.send(how);
                }),
                sabotage,
                journal,
                unfinished,
                sweeps,
                kept,
                no_resend,
                incidents,
            }
        };
        let history = config.history;
        let limits = limits(config);
        let writer_log = log.clone();
        let (metrics, log) = (metrics.clone(), log.clone());
        let (made_in, made) = mpsc::sync_channel(1);
        // The three need each other's addresses: they are made where the daemon's context is.
        Arbiter::new().spawn_fn(move || {
            drop(made_in.send(make(limits, routes, parts, metrics, &log, sabotage)));
        });
        let gone = |_| "the daemon's event loop did not start".to_owned();
        let (daemon, quarantine, collector) = made.recv().map_err(gone)??;
        let writer = journal::Parts {
            drawer,
            told: daemon.clone().recipient(),
            history,
            log: writer_log,
        };
        let journal = JournalActor::start(store, path, &journal, writer);
        let period = timers::tick_period(&config.heartbeat.policy());
        let ticked = vec![daemon.clone().recipient(), quarantine.clone().recipient()];
        let timer = Timer::start(period, ticked)
            .map_err(|e| format!("cannot start the timer thread: {e}"))?;
        Ok(Self {
            daemon,
            quarantine,
            collector,
            journal,
            turned,
            problems,
            over,
            _timer: timer,
        })
    }

    fn view(&self, reloads: Option<Asks>) -> View {
        View {
            reloads,
            daemon: self.daemon.clone(),
            quarantine: self.quarantine.clone(),
            collector: self.collector.clone(),
            turned: Arc::clone(&self.turned),
            problems: self.problems.clone(),
        }
    }

    fn reloader(
        &self,
        how: Rereading,
        token: http::Token,
        config: watch::Sender<Arc<Config>>,
        log: &Logger,
    ) -> (Asks, Reloader) {
        let (ask, asks) = tokio::sync::mpsc::channel(reload::WAITING);
        let reloader = Reloader {
            how,
            asks,
            daemon: self.daemon.clone(),
            quarantine: self.quarantine.clone(),
            recall: self.journal.clone().recipient(),
            token,
            config,
            log: log.clone(),
        };
        (ask, reloader)
    }

    /// Waits for the signal, drains; or learns that the daemon cannot go on.
    async fn until_over(
        &mut self,
        config: &watch::Receiver<Arc<Config>>,
        stop: impl Future<Output = ()>,
        log: &Logger,
    ) -> End {
        // A dropped sender is a daemon that is gone: the smaller remedy is used up.
        let ended = |over: Result<Over, _>| match over {
            Ok(Over::Drained) => End::Done,
            Ok(Over::Escalated) | Err(_) => End::Escalated,
        };
        tokio::select! {
            over = &mut self.over => return ended(over),
            () = stop => {}
        }
        let grace = config.borrow().shutdown_grace;
        info!(log, "draining"; "grace_seconds" => grace.as_secs_f64(),
            "next" => "what is in work is finished, nothing new is begun");
        // An eighth is left for the quarantine, the threads and the last log lines.
        let until = clock::mono() + grace * 7 / 8;
        if self
            .daemon
            .send(Drain { until })
            .timeout(CLOSE_BOUND)
            .await
            .is_err()
        {
            return End::Escalated;
        }
        match actix_rt::time::timeout(grace + CLOSE_BOUND, &mut self.over).await {
            Ok(over) => ended(over),
            Err(_) => {
                error!(log, "draining did not end"; "next" => "the process ends without it");
                End::Escalated
            }
        }
    }

    async fn close(self, log: &Logger) {
        if self
            .quarantine
            .send(Close)
            .timeout(CLOSE_BOUND)
            .await
            .is_err()
        {
            warn!(log, "the quarantine does not answer"; "next" => "the kernel closes its sockets");
        }
        match self
            .collector
            .send(collector::Shutdown)
            .timeout(CLOSE_BOUND)
            .await
        {
            Ok(true) => {}
            Ok(false) | Err(_) => {
                warn!(log, "a spool's thread cannot end"; "next" => "the process ends without it");
            }
        }
        // After all that may still have something to note; what the daemon was told so far it has
        // noted once it answers.
        let _ = self.daemon.send(GetStatus).timeout(CLOSE_BOUND).await;
        let closed = self.journal.send(journal::Close).timeout(CLOSE_BOUND);
        if !matches!(closed.await, Ok(true)) {
            warn!(log, "the journal is not closed in order";
                "next" => "what it lacks is asked of the server at the next start");
        }
    }
}

fn limits(config: &Config) -> Limits {
    let quarantine = &config.quarantine;
    Limits {
        capacity: quarantine.capacity,
        per_destination: quarantine.per_destination,
        hold: quarantine.hold,
        max_send_bytes: quarantine.max_send_bytes,
    }
}

fn make(
    limits: Limits,
    routes: Vec<RouteSpool>,
    parts: impl FnOnce(Peers) -> Parts,
    metrics: Metrics,
    log: &Logger,
    sabotage: Sabotage,
) -> Result<Actors, String> {
    let context = Context::<DaemonActor>::new();
    let daemon = context.address();
    let told = collector::Daemon {
        found: daemon.clone().recipient(),
        state: daemon.clone().recipient(),
        finished: daemon.clone().recipient(),
        changed: daemon.clone().recipient(),
        revived: daemon.clone().recipient(),
    };
    let mut collector = CollectorActor::new(&told, routes, log, Clock::system())
        .map_err(|e| format!("cannot watch the spools: {e}"))?;
    collector.sabotaged_by(sabotage.clone());
    let collector = CollectorActor::start_in_arbiter(&Arbiter::new().handle(), |_| collector);
    let (released, own_log) = (daemon.clone().recipient(), log.clone());
    let quarantine = SocketQuarantineActor::start_in_arbiter(&Arbiter::new().handle(), move |_| {
        SocketQuarantineActor::new(limits, released, metrics, own_log).sabotaged_by(sabotage)
    });
    let peers = Peers {
        strand: quarantine.clone().recipient(),
        seats: quarantine.clone().recipient(),
        resume: quarantine.clone().recipient(),
        want: collector.clone().recipient(),
        finish: collector.clone().recipient(),
        forget: collector.clone().recipient(),
        change: collector.clone().recipient(),
    };
    context.run(DaemonActor::new(parts(peers)));
    Ok((daemon, quarantine, collector))
}
