//! The server's TLS: its certificate, made anew at its start and good or bad as asked, and the
//! configuration of each session. A session's tickets are its own: a data connection can resume
//! only its own control connection, as vsftpd and proftpd demand. It touches no socket.

use std::fmt;
use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// Sessions that one control connection can be resumed from: more than its open tickets.
const TICKETS: usize = 64;
/// What a client may call the server.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What is right or wrong with the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Of the server's CA, for loopback.
    Good,
    /// Its time is over.
    Expired,
    /// For another host.
    WrongHost,
    /// Of no CA.
    SelfSigned,
}

/// The versions that the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.2 and 1.3.
    Both,
    /// TLS 1.2 alone.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

impl Versions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
        match self {
            Self::Both => &BOTH,
            Self::Tls12 => &BOTH[..1],
            Self::Tls13 => &BOTH[1..],
        }
    }
}

/// How a server speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls {
    /// From the first byte on (`ftps://`); otherwise after AUTH TLS (`ftpes://`).
    pub implicit: bool,
    /// What its certificate is like.
    pub certificate: Certificate,
    /// The versions it speaks.
    pub versions: Versions,
    /// Nothing goes without: no login and no data connection.
    pub required: bool,
    /// A data connection must resume the TLS session of its control connection.
    pub reuse: bool,
    /// The client must show a certificate of the server's CA.
    pub client_certificate: bool,
}

impl Tls {
    /// By AUTH TLS, with a good certificate; nothing goes without.
    pub const fn explicit() -> Self {
        Self {
            implicit: false,
            certificate: Certificate::Good,
            versions: Versions::Both,
            required: true,
            reuse: false,
            client_certificate: false,
        }
    }

    /// The same from the first byte on.
    pub const fn implicit() -> Self {
        Self {
            implicit: true,
            ..Self::explicit()
        }
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key (PKCS 8).
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// What a server that speaks TLS has made for itself.
#[derive(Debug)]
pub(super) struct Secure {
    pub tls: Tls,
    pub ca: String,
    pub client: Identity,
    config: ServerConfig,
}

impl Secure {
    pub(super) fn new(tls: Tls) -> io::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name = named("ftpulse lab CA");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(authority, key()?).map_err(io::Error::other)?;
        let server_key = key()?;
        let server = params(tls.certificate)?;
        let server = match tls.certificate {
            Certificate::SelfSigned => server.self_signed(&server_key),
            _ => server.signed_by(&server_key, &ca),
        }
        .map_err(io::Error::other)?;
        let client_key = key()?;
        let mut client = CertificateParams::default();
        client.distinguished_name = named("ftpulse lab client");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = client
            .signed_by(&client_key, &ca)
            .map_err(io::Error::other)?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(tls.versions.supported())
            .map_err(io::Error::other)?;
        let builder = if tls.client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).map_err(io::Error::other)?;
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(io::Error::other)?)
        } else {
            builder.with_no_client_auth()
        };
        let private = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
        let config = builder
            .with_single_cert(vec![server.der().clone()], private)
            .map_err(io::Error::other)?;
        let (certificate, key) = (client.pem(), client_key.serialize_pem());
        Ok(Self {
            tls,
            ca: ca.pem(),
            client: Identity { certificate, key },
            config,
        })
    }

    /// The configuration of one session and its data connections.
    pub(super) fn of_session(&self) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.session_storage = ServerSessionMemoryCache::new(TICKETS);
        Arc::new(config)
    }
}

fn key() -> io::Result<KeyPair> {
    KeyPair::generate().map_err(io::Error::other)
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut names = rcgen::DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn params(certificate: Certificate) -> io::Result<CertificateParams> {
    let names: Vec<String> = match certificate {
        Certificate::WrongHost => vec!["ftp.example.net".to_owned()],
        _ => NAMES.map(str::to_owned).into(),
    };
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name = named("ftpulse lab");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if certificate == Certificate::Expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    Ok(params)
}
