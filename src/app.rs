//! Wiring: which actor runs where, the order of the start, the order of the end. It holds the
//! locks and the timer thread; it decides nothing.

use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Recipient};
use slog::{Logger, error, info, warn};
use tokio::sync::oneshot;

use crate::actors::collector::{self, CollectorActor, RouteSpool};
use crate::actors::daemon::{DaemonActor, Over, Parts, Peers};
use crate::actors::messages::{Close, Drain, GetIncidents, GetStatus, Snapshot, Tick};
use crate::actors::quarantine::SocketQuarantineActor;
use crate::clock;
use crate::config::Config;
use crate::core::ring::Limits;
use crate::http::{self, Answer, Health, Source, Unavailable};
use crate::metrics::Metrics;
use crate::report::{Incident, Status};
use crate::spool::Clock;
use crate::spool::lock::FolderLock;
use crate::sys::fence;
use crate::token;

/// Longest time between two Ticks; `heartbeat.interval` if that is shorter.
const TICK_MAX: Duration = Duration::from_millis(250);
/// A daemon that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);
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
    let config = Arc::new(config);
    fence::install().map_err(|e| format!("cannot prepare this process: {e}"))?;
    std::fs::create_dir_all(&config.state_dir).map_err(|e| {
        let dir = config.state_dir.display();
        format!("cannot make the state folder {dir}: {e}; make it or set state.dir to another")
    })?;
    let _state = FolderLock::acquire(&config.state_dir, "state folder").map_err(|e| e.to_string())?;
    let agent = agent_id(&config.state_dir)?;
    let mut routes = Vec::new();
    for route in config.routes.values() {
        // A folder that is missing or unreadable is reported and waited for; one that somebody
        // else owns is a mistake that waiting does not mend.
        let lock = match FolderLock::acquire(&route.spool, "spool") {
            Ok(lock) => Some(lock),
            Err(e) if e.is_held() => return Err(e.to_string()),
            Err(_) => None,
        };
        routes.push(RouteSpool { route: Arc::clone(route), lock });
    }
    let mut service = Service::start(&config, agent, routes, &metrics, &log)?;
    let source = Arc::new(service.view());
    let (server, address) =
        http::bind(&config.http, metrics, source, log.clone()).map_err(|e| crate::log::chain(&e))?;
    let http = server.handle();
    let serving = actix::spawn(server);
    info!(log, "listening"; "address" => address.to_string(), "next" => "files are sent as they come");
    listening(address);
    let end = service.until_over(&config, stop, &log).await;
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
    turned: Arc<AtomicU64>,
    over: oneshot::Receiver<Over>,
    _timer: Timer,
}

impl Service {
    fn start(
        config: &Arc<Config>,
        agent: String,
        routes: Vec<RouteSpool>,
        metrics: &Metrics,
        log: &Logger,
    ) -> Result<Self, String> {
        let (tell, over) = oneshot::channel();
        let turned = Arc::new(AtomicU64::new(clock::mono().as_millis() as u64));
        // The actors need each other's addresses: made by hand, the daemon's comes first.
        let context = Context::<DaemonActor>::new();
        drop(context);
        let (daemon_in, daemon_out) = mpsc::channel();
        let arbiter = Arbiter::new();
        let (peers_in, peers_out) = mpsc::channel::<Peers>();
        let parts = {
            let (config, metrics, log) = (Arc::clone(config), metrics.clone(), log.clone());
            let turned = Arc::clone(&turned);
            move |peers| Parts {
                config,
                agent,
                peers,
                metrics,
                log,
                turned,
                over: Box::new(move |how| drop(tell.send(how))),
            }
        };
        let _ = (daemon_in, daemon_out, peers_in, peers_out, parts, arbiter, routes, over);
        Err(String::new())
    }
}
