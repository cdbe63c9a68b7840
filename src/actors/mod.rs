//! The actors: thin shells around plain structs. Handlers never block; actors share nothing but
//! each worker's handle, and talk by bounded messages (`try_send`: `do_send` ignores capacity).

pub mod collector;
pub mod daemon;
pub mod journal;
pub mod messages;
pub mod quarantine;
pub mod uploader;
