//! All that is Linux: thin, checked wrappers. The only place where `unsafe` may stand.

pub mod file;
