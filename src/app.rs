//! Wiring: the order of the start, the order of the end. It holds the locks; it decides nothing.

mod kept;
mod origin;
mod reload;
mod service;
mod spools;
mod timer;
mod view;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, info, warn};
use tokio::sync::watch;

use self::origin::Origin;
pub use self::reload::Rereading;
use self::service::{Means, Service, limits};
use crate::config::Config;
use crate::http;
use crate::metrics::Metrics;
use crate::pulse::Sabotage;
use crate::spool::lock::FolderLock;
use crate::sys::fence;
use crate::watchdog::service::Watched;

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
        watched: Watched::default(),
    };
    run_as(config, metrics, log, stop, listening, how).await
}

/// The same, with a configuration that can be read anew while it runs, and told to whoever
/// watches it.
///
/// # Errors
/// As [`run`].
pub async fn run_rereading(
    config: Config,
    metrics: Metrics,
    log: Logger,
    stop: impl Future<Output = ()>,
    rereading: Rereading,
    watched: Watched,
) -> Result<End, String> {
    let how = How {
        sabotage: Sabotage::default(),
        rereading: Some(rereading),
        watched,
    };
    run_as(config, metrics, log, stop, |_| {}, how).await
}

/// What not every service has.
struct How {
    sabotage: Sabotage,
    rereading: Option<Rereading>,
    watched: Watched,
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
        watched,
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
    let Some(mut origin) = Origin::wait_for(&config, &log, &watched, stop.as_mut()).await? else {
        info!(log, "service ended before it began"; "next" => "the process ends");
        return Ok(End::Done);
    };
    let routes = spools::own(&config, &mut origin.journal)?;
    // Said before anything is sent; the server itself needs the service to stand.
    std::net::TcpListener::bind(config.http.listen).map_err(|e| {
        let listen = config.http.listen;
        format!("cannot listen on {listen}: {e}; stop what holds it, or set http.listen")
    })?;
    let means = Means {
        config: &config,
        metrics: &metrics,
        log: &log,
        sabotage,
        watched: &watched,
    };
    let mut service = Service::start(means, origin, routes)?;
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
    watched.ready(&format!("listening on {address}"));
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
