//! TLS as FTP uses it (RFC 4217), by rustls: the handshake, and reading and writing over a blocking
//! socket. A refusal says what is wrong with whose certificate, and what to do.
//! Whatever is tried again after a signal is tried on the socket's number, so that the fence's dead
//! descriptor ends it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, ProtocolVersion};

use super::Trouble;
use super::tickets::Tickets;
use crate::config::Tls;
use crate::core::names::Phase;
use crate::pulse::WorkerHandle;

/// Which versions a session offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// All.
    All,
    /// TLS 1.2, whose sessions are resumed any number of times by the same ticket.
    Older,
    /// All, for the server does not speak TLS 1.2.
    NotOlder,
}

/// How one session's connections are secured. Many servers want a data connection to resume the
/// TLS session of its own control connection, so nothing of it is shared with other sessions.
#[derive(Clone)]
pub(super) struct Security {
    config: Arc<ClientConfig>,
    tickets: Arc<Tickets>,
    host: ServerName<'static>,
}

impl Security {
    pub(super) fn new(tls: &Tls, host: &str, versions: Versions) -> Result<Self, Trouble> {
        let host = ServerName::try_from(host.to_owned()).map_err(|_| Trouble::Lost {
            phase: Phase::Tls,
            error: format!("no certificate can be for the host {host:?}: name it otherwise"),
        })?;
        let common = match versions {
            Versions::All | Versions::NotOlder => &tls.client,
            Versions::Older => &tls.older,
        };
        let tickets = Arc::new(Tickets::new());
        let mut config = ClientConfig::clone(common);
        config.resumption = Resumption::store(Arc::clone(&tickets) as _);
        Ok(Self {
            config: Arc::new(config),
            tickets,
            host,
        })
    }

    /// Whether data connections will soon have no ticket left to be resumed by.
    pub(super) fn is_spent(&self) -> bool {
        self.tickets.not_renewed()
    }

    /// Secures a connection, within a phase of its own.
    pub(super) fn shake_hands(
        &self,
        handle: &WorkerHandle,
        bound: Duration,
        tcp: &TcpStream,
    ) -> Result<ClientConnection, Trouble> {
        handle.begin(Phase::Tls, Some(bound));
        handle.check()?;
        let lost = |error: String| match handle.check() {
            Err(stop) => stop.into(),
            Ok(()) => Trouble::Lost {
                phase: Phase::Tls,
                error,
            },
        };
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.host.clone())
            .map_err(|error| lost(error.to_string()))?;
        let mut tcp = tcp;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut tcp)
                .map_err(|error| lost(self.explain(&error)))?;
        }
        handle.ack();
        handle.check()?;
        Ok(connection)
    }

    fn explain(&self, error: &io::Error) -> String {
        let reason = error.get_ref().and_then(|e| e.downcast_ref());
        match reason {
            Some(reason) => explain(reason, &self.host.to_str()),
            None if error.kind() == ErrorKind::UnexpectedEof => {
                "TLS: the server ended the connection in the handshake".into()
            }
            None => format!("TLS: {error}"),
        }
    }
}

fn explain(error: &rustls::Error, host: &str) -> String {
    match way_out(error, host) {
        Some(way_out) => format!("TLS: {error}: {way_out}"),
        None => format!("TLS: {error}"),
    }
}

/// What was agreed on, for a person.
pub(super) fn agreed(connection: &ClientConnection) -> String {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS",
    };
    match connection.negotiated_cipher_suite() {
        Some(suite) => format!("{version}, {:?}", suite.suite()),
        None => version.to_owned(),
    }
}

/// What a person can do about it.
fn way_out(error: &rustls::Error, host: &str) -> Option<String> {
    use CertificateError as Bad;
    use rustls::Error;
    Some(match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "nobody who is trusted has signed the server's certificate: name the CA that has, or a \
             self-signed certificate itself, in ca_file (put, get, list: --ca-file)"
                .into()
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the server's owner has to renew its certificate (or this machine's clock is wrong)"
                .into()
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "this machine's clock is behind, or the server's certificate is for later".into()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            format!(
                "the server's certificate is not for {host}: name the server as its certificate does"
            )
        }
        Error::InvalidCertificate(_) => {
            "the server's owner has to mend its certificate; tls_verify = false takes any".into()
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure,
        ) => {
            "the server refused us: it may want a client_certificate of a CA that it trusts".into()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            "the server has to offer TLS 1.2 or 1.3 with current ciphers".into()
        }
        Error::InvalidMessage(_) => {
            "what came is no TLS: ftps:// begins with TLS (usually port 990), ftpes:// with FTP \
             (usually port 21)"
                .into()
        }
        _ => return None,
    })
}

/// Reads what the peer sent; 0 at its proper end (close_notify).
///
/// # Errors
/// `UnexpectedEof`: the connection ended without one, so something may be cut off.
pub(super) fn read(
    tls: &mut ClientConnection,
    tcp: &TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut socket = tcp;
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
        tls.read_tls(&mut socket)?;
        let taken = tls.process_new_packets();
        // Answers, or the alert that says what is wrong.
        let flushed = flush(tls, tcp);
        taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, explain(&error, "it")))?;
        flushed?;
    }
}

/// Reads once what has come, and throws it away; true at the peer's end. It does not wait if
/// something has.
pub(super) fn scrap(tls: &mut ClientConnection, tcp: &TcpStream) -> io::Result<bool> {
    let mut socket = tcp;
    if tls.read_tls(&mut socket)? == 0 {
        return Ok(true);
    }
    let taken = tls.process_new_packets();
    let flushed = flush(tls, tcp);
    taken.map_err(io::Error::other)?;
    flushed?;
    let mut scrap = [0; 4096];
    loop {
        match tls.reader().read(&mut scrap) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Hands bytes to the kernel; answers how many of them it took.
pub(super) fn write(
    tls: &mut ClientConnection,
    tcp: &TcpStream,
    bytes: &[u8],
) -> io::Result<usize> {
    let taken = tls.writer().write(bytes)?;
    flush(tls, tcp)?;
    Ok(taken)
}

/// Sends what is ready to be sent.
pub(super) fn flush(tls: &mut ClientConnection, tcp: &TcpStream) -> io::Result<()> {
    let mut socket = tcp;
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            // What was taken cannot be taken back: it is tried until the socket itself refuses.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_mend_is_said_with_the_way_out() {
        let said = |error: rustls::Error| way_out(&error, "ftp.example.net").unwrap_or_default();
        assert!(said(CertificateError::UnknownIssuer.into()).contains("ca_file"));
        assert!(said(CertificateError::NotValidForName.into()).contains("ftp.example.net"));
        assert!(said(CertificateError::Expired.into()).contains("renew"));
        assert!(said(rustls::Error::HandshakeNotComplete).is_empty());
    }
}
