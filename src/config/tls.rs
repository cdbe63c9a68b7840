//! TLS of a route: what is trusted, who we are, and the configuration of rustls made of both.
//! What the files hold is read at every load and compared, so that a changed file is a changed
//! route. Whatever is wrong with one is a fault: nothing ever falls back to less. No secret is
//! printed.

mod verifier;

use super::Secret;
use super::fault::Wrong;
use super::keys;
use super::secret;
use super::server::Security;
use super::settings::Settings;
use super::value::Typed;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS12;
use rustls::{
    ALL_VERSIONS, ClientConfig, Error, InconsistentKeys, RootCertStore, SupportedProtocolVersion,
};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How TLS is spoken with a server.
#[derive(Clone)]
pub struct Tls {
    /// From the first byte on (`ftps://`); else it is asked for by AUTH TLS (`ftpes://`).
    pub implicit: bool,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// What each session's own configuration is made of.
    pub client: Arc<ClientConfig>,
    /// The same, for TLS 1.2 alone.
    pub older: Arc<ClientConfig>,
    /// What both are made of.
    inputs: Inputs,
}

#[derive(Clone, PartialEq)]
struct Inputs {
    trusted: Roots,
    chain: Vec<CertificateDer<'static>>,
    key: Option<Secret>,
}

/// The certificates that are trusted.
pub(super) type Roots = Arc<[CertificateDer<'static>]>;

/// rustls's own configuration cannot be compared; what it is made of can.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let of = |tls: &Self| (tls.implicit, tls.verify);
        of(self) == of(other) && self.inputs == other.inputs
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("implicit", &self.implicit)
            .field("verify", &self.verify)
            .field("trusted", &self.inputs.trusted.len())
            .field("client_certificate", &!self.inputs.chain.is_empty())
            .finish()
    }
}

/// Far above any bundle of certificates; it keeps a wrong path from filling the memory.
const LENGTH_MAX: u64 = 4 * 1024 * 1024;

/// Settings of TLS beside a plain server, a certificate without its key, a key without its
/// certificate.
pub(super) fn check(s: &mut Settings, route: &str) {
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    let server = name("server");
    let plain = match s.get(&server) {
        Some(Typed::Server(place)) => place.security == Security::Plain,
        _ => false,
    };
    let set = |s: &Settings, leaf: &str| match leaf {
        "tls_verify" => !s.bool(&name(leaf)),
        _ => s.has(&name(leaf)) && s.sound(&[&name(leaf)]),
    };
    let leaves = [
        "ca_file",
        "client_certificate",
        "client_key",
        "client_key_file",
        "tls_verify",
    ];
    for leaf in leaves.iter().filter(|_| plain) {
        if set(s, leaf) {
            let origin = s.origin(&server);
            let found = format!("a setting of TLS, but {server} ({origin}) is plain ftp://");
            let allowed = "settings of TLS together with ftpes:// or ftps://";
            let way_out = format!("write ftpes:// in {server}, or remove {leaf}");
            s.fault(&name(leaf), Wrong::new(found, allowed, way_out));
        }
    }
    let (certificate, key, file) = (
        name("client_certificate"),
        name("client_key"),
        name("client_key_file"),
    );
    let has_key = s.has(&key) || s.has(&file);
    if plain || s.has(&certificate) == has_key || !s.sound(&[&certificate, &key, &file]) {
        return;
    }
    let allowed = "client_certificate together with client_key or client_key_file";
    let (at, wrong) = if has_key {
        let found = "a key without its certificate (not shown)";
        let way_out =
            format!("set {certificate} to the file of the certificate, or remove the key");
        (
            if s.has(&key) { key } else { file },
            Wrong::new(found, allowed, way_out),
        )
    } else {
        let way_out = format!("set {file} to the file of its key, or remove the certificate");
        (
            certificate,
            Wrong::new("a certificate without its key", allowed, way_out),
        )
    };
    s.fault(&at, wrong);
}

/// What is given up where the server's certificate is not verified, and what is idle then.
pub(super) fn warnings(s: &Settings) -> Vec<String> {
    let unverified = s.routes.keys().filter(|route| {
        let verify = s.bool(&format!("routes.{route}.tls_verify"));
        let server = s.get(&format!("routes.{route}.server"));
        let tls = matches!(server, Some(Typed::Server(place)) if place.security != Security::Plain);
        tls && !verify
    });
    let told = unverified.flat_map(|route| {
        let ca_file = format!("routes.{route}.ca_file");
        let open = format!(
            "routes.{route}.tls_verify = false: the server's certificate is not verified, so that \
             whoever stands between can read and change the password and the files; better give \
             the server's certificate, or that of its CA, as {ca_file}"
        );
        let idle = s.has(&ca_file).then(|| {
            let origin = s.origin(&ca_file);
            format!("{ca_file} (from {origin}) has no effect: routes.{route}.tls_verify is false")
        });
        [Some(open), idle].into_iter().flatten()
    });
    told.collect()
}

/// Reads the files of a route and makes its TLS of them; none if that is a fault. `system` keeps
/// what the system trusts, for the next route.
pub(super) fn of(
    s: &mut Settings,
    route: &str,
    security: Security,
    key: Option<Secret>,
    system: &mut Option<Roots>,
) -> Option<Tls> {
    let verify = s.bool(&format!("routes.{route}.tls_verify"));
    let provider = Arc::new(ring::default_provider());
    let trusted = trusted(s, route, verify, system);
    let own = own(s, route, key);
    let (trusted, own) = (trusted?, own?);
    let client = |versions: &[_]| client(&provider, versions, verify, &trusted, own.as_ref());
    let made = client(ALL_VERSIONS).and_then(|all| Ok((all, client(&[&TLS12])?)));
    let (chain, key) = own.map_or_else(Default::default, |own| (own.chain, Some(own.key)));
    match made {
        Ok((client, older)) => Some(Tls {
            implicit: security == Security::Implicit,
            verify,
            client: Arc::new(client),
            older: Arc::new(older),
            inputs: Inputs {
                trusted,
                chain,
                key,
            },
        }),
        Err(error) => {
            let wrong = Wrong::new(format!("TLS: {error}"), "TLS 1.2 or 1.3", "report this");
            s.fault(&format!("routes.{route}.server"), wrong);
            None
        }
    }
}

/// What the server's certificate has to lead to. The system is asked only where that matters.
fn trusted(
    s: &mut Settings,
    route: &str,
    verify: bool,
    system: &mut Option<Roots>,
) -> Option<Roots> {
    let name = format!("routes.{route}.ca_file");
    if s.has(&name) {
        let path = s.path(&name)?;
        let way_out =
            "name another file, or remove the key: what the system trusts is trusted then";
        return certificates(s, &name, &path, way_out).map(Into::into);
    }
    if !verify {
        return Some(Roots::default());
    }
    if system.is_none() {
        let found = rustls_native_certs::load_native_certs();
        // Of a system's store a certificate that cannot be read is left out, not all of it.
        if found
            .certs
            .iter()
            .any(|der| RootCertStore::empty().add(der.clone()).is_ok())
        {
            *system = Some(found.certs.into());
        } else {
            let why = found.errors.first().map(|error| format!(": {error}"));
            let wrong = Wrong::new(
                format!(
                    "nothing, and no certificate that this system trusts{}",
                    why.unwrap_or_default()
                ),
                "certificates that the server's can lead to",
                format!(
                    "install the package ca-certificates, or set {} to a file of them, in PEM",
                    keys::variable(&name)
                ),
            );
            s.fault(&name, wrong);
        }
    }
    system.clone()
}

/// The certificates of a file; none if that is a fault.
fn certificates(
    s: &mut Settings,
    name: &str,
    path: &Path,
    way_out: &str,
) -> Option<Vec<CertificateDer<'static>>> {
    let read = secret::bytes(path, LENGTH_MAX).and_then(|bytes| {
        let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|error| format!("its PEM is damaged: {error}"))?;
        if found.is_empty() {
            return Err(match bytes.first() {
                None => "it is empty".into(),
                Some(0x30) => "no certificate in PEM is in it; openssl x509 -inform der makes one \
                               of DER"
                    .into(),
                Some(_) => "no certificate in PEM is in it".to_owned(),
            });
        }
        for (number, der) in (1..).zip(&found) {
            let sound = ParsedCertificate::try_from(der).map(drop);
            let sound = sound.and_then(|()| RootCertStore::empty().add(der.clone()));
            sound.map_err(|error| format!("its certificate {number} is damaged: {error}"))?;
        }
        Ok(found)
    });
    read.map_err(|why| {
        let found = format!("the file {path:?}: {why}");
        let allowed = "a readable file with certificates, in PEM";
        s.fault(name, Wrong::new(found, allowed, way_out));
    })
    .ok()
}

/// Who we are.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: Secret,
    certified: Arc<CertifiedKey>,
}

/// Our certificate with its key, where the route has one; the outer none is a fault.
fn own(s: &mut Settings, route: &str, key: Option<Secret>) -> Option<Option<Own>> {
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    let certificate = name("client_certificate");
    let chain = match s.path(&certificate) {
        Some(path) => {
            let way_out = "name the file of our certificate, or remove it with its key";
            Some((certificates(s, &certificate, &path, way_out)?, path))
        }
        None => None,
    };
    // One alone is told by `check`.
    let (Some((chain, path)), Some(key)) = (chain, key) else {
        return Some(None);
    };
    match certified(&key, &chain, &path) {
        Ok(certified) => Some(Some(Own {
            chain,
            key,
            certified: Arc::new(certified),
        })),
        Err(wrong) => {
            let from_file = s.has(&name("client_key_file"));
            let leaf = if from_file {
                "client_key_file"
            } else {
                "client_key"
            };
            s.fault(&name(leaf), wrong);
            None
        }
    }
}

/// The key made ready to sign, if it is that of the first certificate.
fn certified(
    key: &Secret,
    chain: &[CertificateDer<'static>],
    path: &Path,
) -> Result<CertifiedKey, Wrong> {
    let refuse = |found: String, way_out: &str| {
        let allowed = "the private key of our certificate, in PEM, not encrypted";
        Wrong::new(format!("{found} (not shown)"), allowed, way_out)
    };
    let text = key.reveal();
    if text.contains("ENCRYPTED") {
        let way_out = "decrypt it by openssl pkey, and guard it by the rights of its file";
        return Err(refuse("an encrypted key".into(), way_out));
    }
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        let way_out =
            "give the text between BEGIN PRIVATE KEY and END PRIVATE KEY, with both lines";
        refuse("no private key in PEM".into(), way_out)
    });
    let der: Zeroizing<PrivateKeyDer<'static>> = Zeroizing::new(der?);
    let key = ring::sign::any_supported_type(&der).map_err(|error| {
        let way_out =
            "give an RSA key of 2048 bits or more, a P-256 or P-384 key, or an Ed25519 key";
        refuse(format!("a key that cannot be used: {error}"), way_out)
    })?;
    let certified = CertifiedKey::new(chain.to_vec(), key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => {
            let found = format!("a key that does not fit the first certificate in {path:?}");
            let way_out = "give the key of that certificate, or move the certificate of this key \
                           to the start of its file";
            Err(refuse(found, way_out))
        }
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verify: bool,
    trusted: &Roots,
    own: Option<&Own>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?;
    let verifier = verifier::of(provider, verify, trusted)?;
    let builder = builder.dangerous();
    let builder = builder.with_custom_certificate_verifier(verifier);
    Ok(match own {
        Some(own) => {
            let only = SingleCertAndKey::from(Arc::clone(&own.certified));
            builder.with_client_cert_resolver(Arc::new(only))
        }
        None => builder.with_no_client_auth(),
    })
}
