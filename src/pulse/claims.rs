//! Final names that workers have chosen themselves (`on_conflict = "rename"`). The daemon gives
//! every file's own name to one attempt at a time; a chosen one it does not know, so whoever means
//! to publish under a name claims it here, and keeps it until nothing of its attempt is in doubt.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

type Held = Arc<Mutex<HashSet<(String, String)>>>;

/// The chosen names of one process, with their destinations.
#[derive(Debug, Clone, Default)]
pub struct Claims(Held);

/// A claim; it ends with this value.
#[derive(Debug)]
pub struct Claim {
    held: Held,
    name: (String, String),
}

impl Claims {
    /// Claims a name at a destination; none if somebody has it.
    pub fn take(&self, destination: String, name: String) -> Option<Claim> {
        let name = (destination, name);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(name.clone()).then(|| Claim {
            held: Arc::clone(&self.0),
            name,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_by_one_at_a_time_and_free_afterwards() {
        let claims = Claims::default();
        let take = |name: &str| claims.take("d".into(), name.into());
        let first = take("x");
        assert!(first.is_some() && take("x").is_none() && take("y").is_some());
        drop(first);
        assert!(take("x").is_some());
    }
}
