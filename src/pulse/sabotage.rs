//! Sabotage of the service's own parts, for tests within the process: what is armed for a point
//! happens when a part passes it. Nothing outside the process can reach it, and without the
//! feature `lab` passing a point compiles to nothing.

#[cfg(feature = "lab")]
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

/// A place that a part of the service passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The UploaderActor handles a Ping.
    Uploader,
    /// A fresh worker begins its life.
    Worker,
    /// A worker has moved bytes of a file.
    Transfer,
    /// The daemon handles a Tick.
    Daemon,
    /// The quarantine handles a Tick.
    Quarantine,
    /// The collector is asked to finish a source.
    Collector,
}

#[cfg(feature = "lab")]
type Deed = Arc<dyn Fn() + Send + Sync>;

/// What is armed for one service; every part of it holds a copy.
#[derive(Clone, Default)]
pub struct Sabotage {
    #[cfg(feature = "lab")]
    armed: Arc<Armed>,
}

#[cfg(feature = "lab")]
#[derive(Default)]
struct Armed {
    /// The number of orders left, so that passing a point costs one load while there are none.
    left: AtomicUsize,
    orders: Mutex<Vec<(Point, Deed)>>,
}

impl Sabotage {
    /// A part passes a point.
    #[inline]
    pub fn at(&self, point: Point) {
        #[cfg(feature = "lab")]
        if self.armed.left.load(SeqCst) > 0 {
            self.strike(point);
        }
        #[cfg(not(feature = "lab"))]
        let _ = point;
    }

    /// The next `times` that `point` is passed, `deed` happens on the passing thread.
    #[cfg(feature = "lab")]
    pub fn arm(&self, point: Point, times: usize, deed: impl Fn() + Send + Sync + 'static) {
        let deed: Deed = Arc::new(deed);
        let mut orders = self
            .armed
            .orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        orders.extend(std::iter::repeat_n((point, deed), times));
        self.armed.left.store(orders.len(), SeqCst);
    }

    /// Orders that have not been carried out.
    #[cfg(feature = "lab")]
    pub fn left(&self) -> usize {
        self.armed.left.load(SeqCst)
    }

    /// Takes every order back.
    #[cfg(feature = "lab")]
    pub fn disarm(&self) {
        let mut orders = self
            .armed
            .orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        orders.clear();
        self.armed.left.store(0, SeqCst);
    }

    #[cfg(feature = "lab")]
    fn strike(&self, point: Point) {
        let deed = {
            let mut orders = self
                .armed
                .orders
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let at = orders.iter().position(|(p, _)| *p == point);
            let deed = at.map(|at| orders.remove(at).1);
            self.armed.left.store(orders.len(), SeqCst);
            deed
        };
        // Without the lock: it may panic, or never come back.
        if let Some(deed) = deed {
            deed();
        }
    }
}
