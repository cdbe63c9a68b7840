//! The tickets of one session, with which its next data connection resumes its TLS. rustls uses
//! each of TLS 1.3 but once (RFC 8446 appendix C.4), and so runs out of them where a server gives
//! no new one on a resumed connection (proftpd); this tells so before it happens.

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Tickets kept for one session: servers hand out two at a time.
const KEPT: usize = 8;

/// What rustls keeps of one session.
#[derive(Debug)]
pub(super) struct Tickets {
    kept: ClientSessionMemoryCache,
    /// One was used, and none has come since.
    owed: AtomicBool,
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self {
            kept: ClientSessionMemoryCache::new(KEPT),
            owed: AtomicBool::new(false),
        }
    }

    /// Whether the server gave no new ticket on the last connection that was resumed.
    pub(super) fn not_renewed(&self) -> bool {
        self.owed.load(SeqCst)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.kept.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.kept.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.owed.store(false, SeqCst);
        self.kept.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let taken = self.kept.take_tls13_ticket(name);
        self.owed.fetch_or(taken.is_some(), SeqCst);
        taken
    }
}
