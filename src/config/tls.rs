//! How a destination is secured.

use std::sync::Arc;

/// TLS of a destination.
#[derive(Debug, Clone)]
pub struct Tls {
    /// From the first byte (`ftps://`), not after AUTH (`ftpes://`).
    pub implicit: bool,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// The client's side of it.
    pub client: Arc<rustls::ClientConfig>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.implicit == other.implicit && Arc::ptr_eq(&self.client, &other.client)
    }
}

/// Active mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// Told to the server.
    pub address: Option<std::net::IpAddr>,
    /// Where we listen.
    pub ports: Option<std::ops::RangeInclusive<u16>>,
}
