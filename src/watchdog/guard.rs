//! The guard: it starts one program, watches it, kills it and starts it again (S4).
