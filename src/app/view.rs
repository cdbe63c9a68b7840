//! The service as its HTTP side sees it: questions to the actors, and whether the loop turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use actix::Addr;
use tokio::sync::{oneshot, watch};

use super::reload::Asks;
use crate::actors::collector::{self, CollectorActor};
use crate::actors::daemon::DaemonActor;
use crate::actors::messages::{GetIncidents, GetStatus, Snapshot};
use crate::actors::quarantine::SocketQuarantineActor;
use crate::clock;
use crate::http::{Answer, Health, Retried, Source, Unavailable};
use crate::report::{Incident, NotReloaded, Reloaded, RetryRequest, Status};

/// A daemon that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// What the HTTP side sees.
pub struct View {
    /// The daemon: status and incidents.
    pub daemon: Addr<DaemonActor>,
    /// The quarantine: what it holds.
    pub quarantine: Addr<SocketQuarantineActor>,
    /// The collector: dead letters that are sent again.
    pub collector: Addr<CollectorActor>,
    /// Who reads the configuration anew; none where there is nothing to be read.
    pub reloads: Option<Asks>,
    /// When the daemon's loop turned last.
    pub turned: Arc<AtomicU64>,
    /// Why the service is not ready.
    pub problems: watch::Receiver<Vec<String>>,
}

impl Source for View {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async {
            let gone = |e: actix::MailboxError| Unavailable(e.to_string());
            let mut status = self.daemon.send(GetStatus).await.map_err(gone)?;
            status.quarantine = self.quarantine.send(Snapshot).await.map_err(gone)?;
            Ok(status)
        })
    }

    fn incidents(&self) -> Answer<'_, Vec<Incident>> {
        Box::pin(async {
            self.daemon
                .send(GetIncidents)
                .await
                .map_err(|e| Unavailable(e.to_string()))
        })
    }

    fn incident(&self, id: u64) -> Answer<'_, Option<Incident>> {
        Box::pin(async move {
            Ok(self
                .incidents()
                .await?
                .into_iter()
                .find(|incident| incident.id == id))
        })
    }

    fn retry(&self, request: RetryRequest) -> Answer<'_, Retried> {
        Box::pin(async move {
            let status = self.status().await?;
            let routes: Vec<String> = status.routes.into_iter().map(|r| r.name).collect();
            if !routes.contains(&request.route) {
                return Ok(Retried::NoRoute { routes });
            }
            let retry = collector::Retry {
                route: request.route.as_str().into(),
                files: request.files,
            };
            let done = self.collector.send(retry).await;
            let done = done.map_err(|e| Unavailable(e.to_string()))?;
            let gone = || Unavailable("the spool's thread has ended".into());
            let done = done.ok_or_else(gone)?.map_err(Unavailable)?;
            Ok(Retried::Done(done))
        })
    }

    fn reload(&self) -> Answer<'_, Result<Reloaded, NotReloaded>> {
        Box::pin(async move {
            let nothing = || Unavailable("this service has no configuration to read anew".into());
            let reloads = self.reloads.as_ref().ok_or_else(nothing)?;
            let (answer, answered) = oneshot::channel();
            let many = |_| Unavailable("too many reloads wait already".into());
            reloads.try_send(answer).map_err(many)?;
            let ending = |_| Unavailable("the service is about to end".into());
            answered.await.map_err(ending)?
        })
    }

    fn healthy(&self) -> Health {
        let turned = Duration::from_millis(self.turned.load(SeqCst));
        let silent = clock::mono().saturating_sub(turned);
        if silent < STUCK {
            Health::Turning
        } else {
            Health::Stuck { silent }
        }
    }

    fn ready(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }
}
