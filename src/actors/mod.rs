//! The actors: thin shells around plain structs; no handler blocks.

pub mod collector;
