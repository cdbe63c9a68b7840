//! Configuration: layers are read raw, then validated as a whole.

mod model;
pub use model::*;
