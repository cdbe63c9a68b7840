//! The actors of a running service: which one runs where, who knows whom, and how all of them end.
//! It holds the timer thread.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;

use actix::{Actor, Addr, Arbiter, AsyncContext, Context};
use slog::{Logger, error, info, warn};
use tokio::sync::{oneshot, watch};

use super::kept::KeptJournal;
use super::origin::Origin;
use super::reload::{self, Asks, Reloader, Rereading};
use super::timer::Timer;
use super::view::View;
use super::{CLOSE_BOUND, End};
use crate::actors::collector::{self, CollectorActor, RouteSpool};
use crate::actors::daemon::{DaemonActor, Over, Parts, Peers};
use crate::actors::journal::{self, JournalActor};
use crate::actors::messages::{Close, Drain, GetStatus, Turn};
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
use crate::watchdog::service::Watched;

/// How many steps of the end have that bound of their own.
const CLOSES: u32 = 6;

/// The actors of a running service.
pub struct Service {
    daemon: Addr<DaemonActor>,
    quarantine: Addr<SocketQuarantineActor>,
    collector: Addr<CollectorActor>,
    journal: Addr<JournalActor>,
    turned: Arc<AtomicU64>,
    problems: watch::Receiver<Vec<String>>,
    over: oneshot::Receiver<Over>,
    watched: Watched,
    _timer: Timer,
}

type Actors = (
    Addr<DaemonActor>,
    Addr<SocketQuarantineActor>,
    Addr<CollectorActor>,
);

/// What a service is started with.
pub struct Means<'a> {
    pub config: &'a Arc<Config>,
    pub metrics: &'a Metrics,
    pub log: &'a Logger,
    pub sabotage: Sabotage,
    pub watched: &'a Watched,
}

impl Service {
    /// Starts all actors and the timer.
    ///
    /// # Errors
    /// A sentence that names what could not be had.
    pub fn start(
        means: Means<'_>,
        origin: Origin,
        mut routes: Vec<RouteSpool>,
    ) -> Result<Self, String> {
        let Means {
            config,
            metrics,
            log,
            sabotage,
            watched,
        } = means;
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
            let counters = watched.counters().clone();
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
                counters,
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
        let told = watched.clone();
        // The three need each other's addresses: they are made where the daemon's context is.
        Arbiter::new().spawn_fn(move || {
            told.loop_is_here();
            drop(made_in.send(make(limits, routes, parts, metrics, &log, sabotage)));
        });
        let gone = |_| "the daemon's event loop did not start".to_owned();
        let (daemon, quarantine, collector) = made.recv().map_err(gone)??;
        watched.ask_by(Box::new(asking(&daemon, watched)));
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
            watched: watched.clone(),
            _timer: timer,
        })
    }

    /// The service as its HTTP side sees it.
    pub fn view(&self, reloads: Option<Asks>) -> View {
        View {
            reloads,
            daemon: self.daemon.clone(),
            quarantine: self.quarantine.clone(),
            collector: self.collector.clone(),
            turned: Arc::clone(&self.turned),
            problems: self.problems.clone(),
        }
    }

    /// Who reads the configuration anew, and where to ask for it.
    pub fn reloader(
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
            watched: self.watched.clone(),
            log: log.clone(),
        };
        (ask, reloader)
    }

    /// Waits for the signal, drains; or learns that the daemon cannot go on.
    pub async fn until_over(
        &mut self,
        config: &watch::Receiver<Arc<Config>>,
        stop: impl Future<Output = ()>,
        log: &Logger,
    ) -> End {
        // A dropped sender is a daemon that is gone: the smaller remedy is used up.
        let watched = self.watched.clone();
        let escalated = |why: &str| {
            watched.status(&format!("{why}; the service ends with 70 to be restarted"));
            End::Escalated
        };
        let ended = |over: Result<Over, _>| match over {
            Ok(Over::Drained) => End::Done,
            Ok(Over::Escalated(why)) => escalated(why),
            Err(_) => escalated("the daemon is gone"),
        };
        tokio::select! {
            over = &mut self.over => return ended(over),
            () = stop => {}
        }
        let grace = config.borrow().shutdown_grace;
        info!(log, "draining"; "grace_seconds" => grace.as_secs_f64(),
            "next" => "what is in work is finished, nothing new is begun");
        self.watched.stopping(grace + CLOSE_BOUND * CLOSES);
        // An eighth is left for the quarantine, the threads and the last log lines.
        let until = clock::mono() + grace * 7 / 8;
        if self
            .daemon
            .send(Drain { until })
            .timeout(CLOSE_BOUND)
            .await
            .is_err()
        {
            return escalated("the daemon does not answer");
        }
        match actix_rt::time::timeout(grace + CLOSE_BOUND, &mut self.over).await {
            Ok(over) => ended(over),
            Err(_) => {
                error!(log, "draining did not end"; "next" => "the process ends without it");
                escalated("draining did not end")
            }
        }
    }

    /// Closes what is left, in order.
    pub async fn close(self, log: &Logger) {
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

/// The quarantine's bounds.
pub fn limits(config: &Config) -> Limits {
    let quarantine = &config.quarantine;
    Limits {
        capacity: quarantine.capacity,
        per_destination: quarantine.per_destination,
        hold: quarantine.hold,
        max_send_bytes: quarantine.max_send_bytes,
    }
}

/// How the daemon's loop is asked to go round once.
fn asking(daemon: &Addr<DaemonActor>, watched: &Watched) -> impl Fn() -> bool + Send + use<> {
    let (daemon, watched) = (daemon.clone(), watched.clone());
    move || {
        let watched = watched.clone();
        let answer = Box::new(move |status| watched.turned(status));
        // A full mailbox: asked at the next pulse.
        daemon.try_send(Turn { answer }).is_ok()
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
