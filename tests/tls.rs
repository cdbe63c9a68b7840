//! TLS as a stranger meets it: its settings, and the files that they name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::process::{Command, Output};

use ftpulse::config::{self, Loaded, Sources};
use support::certificates::Authority;

/// Stands in a place where a secret can stand; no output may ever hold it.
const SECRET: &str = "hunter2-Zq9";
const SPOOL: (&str, &str) = ("FTPULSE__ROUTES__MAIN__SPOOL", "/spool");
const TLS: (&str, &str) = ("FTPULSE__ROUTES__MAIN__SERVER", "ftpes://user@host/in");
const PASSWORD: (&str, &str) = ("FTPULSE__ROUTES__MAIN__PASSWORD", SECRET);

fn check(env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
    command.arg("check").env_clear().envs(env.iter().copied());
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(all).unwrap()
}

fn load(env: &[(&str, &str)]) -> Loaded {
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    let env = env.collect();
    config::load(Sources { file: None, env }).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The content of the bad file, the settings, the words of the message.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn files_of_tls_that_cannot_be_used_are_named_and_no_key_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.write(folder.path());
    let (certificate, _) = authority.client().write(folder.path(), "client");
    let (_, strange) = other.client().write(folder.path(), "strange");
    let [ca, certificate, strange] = [&ca, &certificate, &strange].map(|p| p.to_str().unwrap());
    let bad = folder.path().join("bad");
    let bad = bad.to_str().unwrap();
    let cut = &authority.certificate.replace("MII", "AII");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2-Zq9\n";
    let weak = "-----BEGIN PRIVATE KEY-----\naHVudGVyMi1acTk=\n-----END PRIVATE KEY-----\n";
    #[rustfmt::skip]
    let cases: &[Case<'_>] = &[
        ("", &[("CA_FILE", bad)], &["routes.main.ca_file", "it is empty", "name another file"]),
        ("hunter2-Zq9", &[("CA_FILE", bad)], &["no certificate in PEM is in it"]),
        ("0\u{1}", &[("CA_FILE", bad)], &["no certificate in PEM", "openssl x509 -inform der"]),
        (cut, &[("CA_FILE", bad)], &["its certificate 1 is damaged"]),
        ("-----BEGIN CERTIFICATE-----\nMIIB", &[("CA_FILE", bad)], &["its PEM is damaged"]),
        (weak, &[("CA_FILE", bad)], &["no certificate in PEM is in it"]),
        ("x", &[("CLIENT_CERTIFICATE", bad), ("CLIENT_KEY_FILE", strange)], &["routes.main.client_certificate", "no certificate in PEM is in it", "remove it with its key"]),
        ("", &[("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY_FILE", bad)], &["client_key_file, from FTPULSE__ROUTES__MAIN__CLIENT_KEY_FILE", "it is empty", "with the key, in PEM"]),
        ("hunter2-Zq9", &[("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY_FILE", bad)], &["client_key_file", "no private key in PEM", "BEGIN PRIVATE KEY"]),
        (encrypted, &[("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY_FILE", bad)], &["an encrypted key", "openssl pkey"]),
        (weak, &[("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY_FILE", bad)], &["a key that cannot be used", "RSA"]),
        ("", &[("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY", encrypted)], &["routes.main.client_key, from FTPULSE__ROUTES__MAIN__CLIENT_KEY\n", "an encrypted key"]),
        ("", &[("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY_FILE", strange)], &["client_key_file", "does not fit the first certificate in", "client.pem", "to the start of its file"]),
        ("", &[("CLIENT_CERTIFICATE", ca), ("CLIENT_KEY_FILE", "/no/such.key")], &["client_key_file", "\"/no/such.key\": No such file"]),
    ];
    for (content, settings, words) in cases {
        fs::write(bad, content).unwrap();
        let names: Vec<_> = settings
            .iter()
            .map(|(leaf, value)| (format!("FTPULSE__ROUTES__MAIN__{leaf}"), *value))
            .collect();
        let mut env = vec![SPOOL, TLS, PASSWORD];
        env.extend(names.iter().map(|(name, value)| (name.as_str(), *value)));
        let output = check(&env);
        let message = text(&output);
        println!("--- {content:.20?} {settings:.40?}\n{message}");
        assert_eq!(output.status.code(), Some(2), "{message}");
        for word in *words {
            assert!(message.contains(word), "no {word:?} in\n{message}");
        }
        assert!(
            !message.contains(SECRET) && !message.contains("aHVudGVy"),
            "{message}"
        );
    }
}

#[test]
fn tls_is_explicit_or_implicit_and_what_its_files_hold_makes_it_another() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = authority.write(folder.path());
    let (certificate, key) = authority.client().write(folder.path(), "client");
    let tls = |url: &str, more: &[(&str, &str)]| {
        let mut env = vec![SPOOL, PASSWORD, ("FTPULSE__ROUTES__MAIN__SERVER", url)];
        env.push(("FTPULSE__ROUTES__MAIN__CA_FILE", ca.to_str().unwrap()));
        env.extend(more);
        let loaded = load(&env);
        let server = loaded.config.routes["main"].server.clone();
        (server, loaded)
    };
    for (url, key, implicit) in [
        ("ftpes://u@h/in", "u@h:21", false),
        ("ftpes://u@h:21", "u@h:21", false),
        ("ftps://u@[::1]/", "u@::1:990", true),
        ("FTPS://u@[::1]:21/", "u@::1:21", true),
        ("ftps://u@h:2121", "u@h:2121", true),
    ] {
        let (server, loaded) = tls(url, &[]);
        let tls = server.tls.as_ref().unwrap();
        assert_eq!((server.key().as_str(), tls.implicit), (key, implicit));
        assert!(tls.verify);
        assert_eq!(loaded.warnings, [""; 0], "{url}: nothing is in clear");
    }

    let own = [
        (
            "FTPULSE__ROUTES__MAIN__CLIENT_CERTIFICATE",
            certificate.to_str().unwrap(),
        ),
        (
            "FTPULSE__ROUTES__MAIN__CLIENT_KEY_FILE",
            key.to_str().unwrap(),
        ),
    ];
    let (first, loaded) = tls("ftpes://u@h", &own);
    assert_eq!(first, tls("ftpes://u@h", &own).0, "the same files");
    assert_ne!(first, tls("ftps://u@h:21", &own).0);
    assert_ne!(first, tls("ftpes://u@h", &[]).0);
    let shown = |key: &str| {
        loaded
            .settings
            .iter()
            .find(|s| s.key.ends_with(key))
            .cloned()
    };
    assert_eq!(shown("client_key").unwrap().value, "(secret)");
    assert_eq!(shown("ca_file").unwrap().value, ca.to_str().unwrap());
    let pem = fs::read_to_string(&key).unwrap();
    let debugged = format!("{loaded:?}");
    assert!(
        pem.lines().all(|line| !debugged.contains(line)),
        "{debugged}"
    );
    let given = [
        own[0],
        ("FTPULSE__ROUTES__MAIN__CLIENT_KEY", pem.trim_end()),
    ];
    assert_eq!(first, tls("ftpes://u@h", &given).0, "the same key");

    authority.client().write(folder.path(), "client");
    let renewed = tls("ftpes://u@h", &own).0;
    assert_ne!(first, renewed, "another key in the same file");
    assert_eq!(first.key(), renewed.key());
    Authority::new().write(folder.path());
    assert_ne!(
        renewed,
        tls("ftpes://u@h", &own).0,
        "another CA in the same file"
    );
}

#[test]
fn a_certificate_that_is_not_verified_is_warned_of_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new().write(folder.path());
    let env = [
        SPOOL,
        TLS,
        PASSWORD,
        ("FTPULSE__ROUTES__MAIN__TLS_VERIFY", "false"),
        ("FTPULSE__ROUTES__MAIN__CA_FILE", ca.to_str().unwrap()),
        // Nobody is trusted, so the system need not trust anybody either.
        ("SSL_CERT_FILE", "/no/such.pem"),
    ];
    assert!(
        !load(&env).config.routes["main"]
            .server
            .tls
            .as_ref()
            .unwrap()
            .verify
    );
    let output = check(&env);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    for words in [
        "routes.main.tls_verify           false ",
        "warning: routes.main.tls_verify = false: the server's certificate is not verified",
        "warning: routes.main.ca_file (from FTPULSE__ROUTES__MAIN__CA_FILE) has no effect",
    ] {
        assert!(told.contains(words), "no {words:?} in\n{told}");
    }
    let env = &env[..4];
    assert_eq!(check(env).status.code(), Some(0));
    assert_eq!(load(env).warnings.len(), 1);
}
