//! The side of the service: what it tells whoever watches it (sd_notify(3), S5).
