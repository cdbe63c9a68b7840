//! Sabotage of the service's own parts, for tests within the process: what is armed for a point
//! happens when a part passes it. Nothing outside the process can reach it, and without the
//! feature `lab` passing a point compiles to nothing.

#[cfg(feature = "lab")]
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::WorkerHandle;

/// A place that a part of the service passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The UploaderActor handles a Ping.
    Uploader,
    /// A fresh worker begins its life.
    Worker,
    /// A worker is about to open the source of a file.
    Source,
    /// A worker has moved bytes of a file.
    Transfer,
    /// A look-up's helper thread is about to ask the resolver.
    Resolver,
    /// The daemon handles a Tick.
    Daemon,
    /// The quarantine handles a Tick.
    Quarantine,
    /// The collector is asked to finish a source.
    Collector,
}

/// What happens to the part that passes; a worker's points hand its handle over.
#[cfg(feature = "lab")]
type Deed = Arc<dyn Fn(Option<&WorkerHandle>) + Send + Sync>;

/// What is armed for one service; every part of it holds a copy.
#[derive(Clone, Default)]
pub struct Sabotage {
    #[cfg(feature = "lab")]
    armed: Arc<Armed>,
    /// The route whose parts hold this copy, where they belong to one.
    #[cfg(feature = "lab")]
    route: Option<Arc<str>>,
    #[cfg(feature = "lab")]
    no_journal: bool,
}

#[cfg(feature = "lab")]
#[derive(Default)]
struct Armed {
    /// The number of orders left, so that passing a point costs one load while there are none.
    left: AtomicUsize,
    orders: Mutex<Vec<Order>>,
}

#[cfg(feature = "lab")]
struct Order {
    point: Point,
    /// Only parts of this route.
    route: Option<Arc<str>>,
    deed: Deed,
}

impl Sabotage {
    /// The copy for the parts of one route.
    #[must_use]
    pub fn of_route(&self, route: &str) -> Self {
        #[cfg(feature = "lab")]
        return Self {
            route: Some(route.into()),
            ..self.clone()
        };
        #[cfg(not(feature = "lab"))]
        {
            let _ = route;
            self.clone()
        }
    }

    /// Whether the service runs without its journal: what that costs can only be measured so.
    pub fn forgoes_journal(&self) -> bool {
        #[cfg(feature = "lab")]
        return self.no_journal;
        #[cfg(not(feature = "lab"))]
        false
    }

    /// A part passes a point.
    #[inline]
    pub fn at(&self, point: Point) {
        #[cfg(feature = "lab")]
        if self.armed.left.load(SeqCst) > 0 {
            self.strike(point, None);
        }
        #[cfg(not(feature = "lab"))]
        let _ = point;
    }

    /// A worker, or a helper of it, passes a point.
    #[inline]
    pub fn at_worker(&self, point: Point, worker: &WorkerHandle) {
        #[cfg(feature = "lab")]
        if self.armed.left.load(SeqCst) > 0 {
            self.strike(point, Some(worker));
        }
        #[cfg(not(feature = "lab"))]
        let _ = (point, worker);
    }
}

#[cfg(feature = "lab")]
impl Sabotage {
    /// One whose service has no journal.
    pub fn without_journal() -> Self {
        Self {
            no_journal: true,
            ..Self::default()
        }
    }

    /// The next `times` that `point` is passed, `deed` happens on the passing thread.
    pub fn arm(&self, point: Point, times: usize, deed: impl Fn() + Send + Sync + 'static) {
        self.order(point, None, times, Arc::new(move |_| deed()));
    }

    /// The next time that a worker of `route` passes `point`, `deed` happens on its thread.
    pub fn arm_worker(
        &self,
        point: Point,
        route: &str,
        deed: impl Fn(&WorkerHandle) + Send + Sync + 'static,
    ) {
        let deed: Deed = Arc::new(move |worker| {
            if let Some(worker) = worker {
                deed(worker);
            }
        });
        self.order(point, Some(route.into()), 1, deed);
    }

    fn order(&self, point: Point, route: Option<Arc<str>>, times: usize, deed: Deed) {
        let mut orders = self.orders();
        for _ in 0..times {
            orders.push(Order {
                point,
                route: route.clone(),
                deed: Arc::clone(&deed),
            });
        }
        self.armed.left.store(orders.len(), SeqCst);
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        let orders = self.armed.orders.lock();
        orders.unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders that have not been carried out.
    pub fn left(&self) -> usize {
        self.armed.left.load(SeqCst)
    }

    /// Takes every order back.
    pub fn disarm(&self) {
        let mut orders = self.orders();
        orders.clear();
        self.armed.left.store(0, SeqCst);
    }

    fn strike(&self, point: Point, worker: Option<&WorkerHandle>) {
        let deed = {
            let mut orders = self.orders();
            let fits = |o: &Order| o.point == point && (o.route.is_none() || o.route == self.route);
            let at = orders.iter().position(fits);
            let deed = at.map(|at| orders.remove(at).deed);
            self.armed.left.store(orders.len(), SeqCst);
            deed
        };
        // Without the lock: it may panic, or never come back.
        if let Some(deed) = deed {
            deed(worker);
        }
    }
}
