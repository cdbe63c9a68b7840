//! Certificates made for a test: an authority of its own, and what it gives to servers and
//! clients, good and bad. In PEM.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Pair {
    /// Writes both as `NAME.pem` and `NAME.key`; their paths.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (
            dir.join(name).with_extension("pem"),
            dir.join(name).with_extension("key"),
        );
        fs::write(&certificate, &self.certificate).unwrap();
        fs::write(&key, &self.key).unwrap();
        (certificate, key)
    }
}

/// What kind of certificate a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// One for its address and for localhost.
    #[default]
    Good,
    /// The same, but its time is over.
    Expired,
    /// One for another host.
    OtherHost,
    /// One that nobody but itself signed.
    SelfSigned,
    /// The same, and it calls itself an authority, as `openssl req -x509` makes them.
    SelfSignedAuthority,
}

/// How a server speaks TLS.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Who signed its certificate, and whose clients it takes.
    pub authority: Arc<Authority>,
    /// What it shows.
    pub shown: Shown,
    /// From the first byte on.
    pub implicit: bool,
    /// The one version that it speaks: `TLSv1.2` or `TLSv1.3`.
    pub only: Option<&'static str>,
    /// It takes only clients that show a certificate.
    pub wants_client: bool,
}

/// An authority that one test trusts.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub certificate: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::SeqCst);
        let mut params = named(&format!("ftpulse test authority {number}"), &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
        }
    }

    /// Writes its certificate; the path.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        fs::write(&path, &self.certificate).unwrap();
        path
    }

    /// What a server at that address shows.
    pub fn server(&self, shown: Shown, ip: IpAddr) -> Pair {
        let own = ["localhost", "127.0.0.1", "::1", &ip.to_string()].map(String::from);
        let mut params = match shown {
            Shown::OtherHost => named("another host", &["ftp.example.net".into()]),
            _ => named("ftpulse test server", &own),
        };
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if shown == Shown::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        if shown == Shown::SelfSignedAuthority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match shown {
            Shown::SelfSigned | Shown::SelfSignedAuthority => params.self_signed(&key).unwrap(),
            _ => params.signed_by(&key, &self.issuer).unwrap(),
        };
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// What a client shows.
    pub fn client(&self) -> Pair {
        let mut params = named("ftpulse test client", &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn named(name: &str, subjects: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(subjects).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
