//! A route's remote folder as its attempts know it: where it is, and how often it was made anew in
//! this life. That a name is absent in another folder, or in one that was made since, proves
//! nothing of an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A remote folder; its clones are one.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    place: Arc<str>,
    made: Arc<AtomicU64>,
}

impl Folder {
    /// The one at that place: the destination and the folder's own path.
    pub fn at(place: &str) -> Self {
        Self {
            place: place.into(),
            made: Arc::default(),
        }
    }

    /// Where it is.
    pub fn place(&self) -> &Arc<str> {
        &self.place
    }

    /// It is about to be made anew: whatever was in it is gone.
    pub fn remake(&self) {
        self.made.fetch_add(1, SeqCst);
    }

    /// How often it was made anew.
    pub fn made(&self) -> u64 {
        self.made.load(SeqCst)
    }
}
