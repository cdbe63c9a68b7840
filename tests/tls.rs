//! TLS as a user meets it: its settings and the files that they name; real servers that want each
//! data connection to resume its session; who is refused, and with what words; what a wedge and a
//! lost reply come to. `FTPULSE_FILES` sets how many files each server gets (a suite's share by
//! default).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;
mod wedge_common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use ftpulse::config::{self, Loaded, Sources};
use rustix::process::Signal;
use serde_json::Value;
use support::certificates::{Authority, Secured, Shown};
use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings};
use support::{PATIENCE, content, count_of, wait_until};
use wedge_common::{is_held, wait_incident};

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

/// vsftpd or proftpd, which want a data connection to resume the session of its own control
/// connection.
type Strict = fn(Opts) -> Server;

const STRICT: [Strict; 2] = [Server::vsftpd, Server::proftpd];
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

fn secured(change: impl FnOnce(&mut Secured)) -> Opts {
    Opts::default()
        .tls(&Arc::new(Authority::new()))
        .tls_with(change)
}

/// One uploader, timers that suit a test.
fn settings(server: &Server) -> Settings {
    let settings = Settings::new().quick().route("main", server, "in");
    settings.key("routes.main.uploaders", "1")
}

/// How many sessions a server has made TLS.
fn sessions(server: &Server) -> usize {
    let log = server.log();
    // vsftpd logs the command and its reply, proftpd the command with its reply's code.
    let of = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    match server.name {
        "vsftpd" => of("\"AUTH TLS\""),
        _ => of("\"AUTH TLS\" 234"),
    }
}

/// Old temp names are looked for now and then, in a session of its own where none is there.
const LOOKS: usize = 2;

/// Every attempt has ended well, the first of each file.
fn assert_clean(service: &Ftpulse, files: usize) {
    let attempts = |result| {
        let labels = [("route", "main"), ("result", result)];
        service
            .metrics()
            .sum("ftpulse_upload_attempts_total", &labels)
    };
    assert_eq!(attempts("ok"), files as f64);
    for result in ["error", "timeout", "reset"] {
        assert_eq!(attempts(result), 0.0, "{result}");
    }
}

fn assert_arrived(server: &Server, files: usize) {
    for i in 0..files {
        let path = server.path("in").join(format!("f{i}.bin"));
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(bytes == content(i as u64, size(i)), "{}", path.display());
    }
}

fn size(i: usize) -> usize {
    if i.is_multiple_of(50) {
        1 << 20
    } else {
        i * 977 % 40_000
    }
}

#[test]
fn many_uploads_in_one_session_each_resume_it() {
    let files = count_of("FTPULSE_FILES", 30);
    for (start, version, expected) in [
        (Server::vsftpd as Strict, Some("TLSv1.2"), 1),
        (Server::vsftpd, Some("TLSv1.3"), 1),
        (Server::proftpd, Some("TLSv1.2"), 1),
        // It gives no new ticket on a resumed connection of TLS 1.3, and each serves once: one
        // session shows that, the next is over TLS 1.2.
        (Server::proftpd, None, 2),
        // Nor can it be had without: a session a file.
        (Server::proftpd, Some("TLSv1.3"), files),
    ] {
        let server = start(secured(|tls| tls.only = version));
        let settings = settings(&server);
        for i in 0..files {
            let path = settings.spool("main").join(format!("f{i}.bin"));
            fs::write(path, content(i as u64, size(i))).unwrap();
        }
        let service = settings.start();
        service.wait_spool_empty("main", PATIENCE * 3);
        assert_arrived(&server, files);
        assert_clean(&service, files);
        let sessions = sessions(&server);
        println!(
            "{} {version:?}: {files} files, {sessions} sessions",
            server.name
        );
        let most = if expected == files {
            files + LOOKS
        } else {
            expected
        };
        assert!((expected..=most).contains(&sessions), "{sessions}");
    }
}

#[test]
fn as_many_uploads_each_in_a_session_of_its_own() {
    let files = count_of("FTPULSE_FILES", 10);
    for (start, version) in STRICT.iter().flat_map(|s| VERSIONS.map(|v| (s, v))) {
        let server = start(secured(|tls| tls.only = Some(version)));
        let service = settings(&server).key("timers.idle_session", "10ms").start();
        for i in 0..files {
            let name = format!("f{i}.bin");
            service.put("main", &name, &content(i as u64, size(i)));
            service.wait_delivered(&name);
            wait_until("the session has ended", PATIENCE, || {
                server.pids().is_empty()
            });
        }
        assert_arrived(&server, files);
        assert_clean(&service, files);
        let sessions = sessions(&server);
        println!(
            "{} {version}: {files} files in {sessions} sessions",
            server.name
        );
        assert!((files..=files + LOOKS).contains(&sessions), "{sessions}");
    }
}

#[test]
fn every_server_takes_files_over_tls_from_the_first_byte_too() {
    let mut servers = Server::all(&secured(|_| {}));
    servers.extend(STRICT.map(|start| start(secured(|tls| tls.implicit = true))));
    for server in servers {
        let service = settings(&server).start();
        for (name, size) in [("empty", 0), ("small", 1000), ("large", 20 << 20)] {
            let bytes = content(1, size);
            service.put("main", name, &bytes);
            service.wait_delivered(name);
            assert!(fs::read(server.path("in").join(name)).unwrap() == bytes);
        }
        assert_clean(&service, 3);
    }
}

/// The reason of a failed attempt, which holds these words; no user and no password has come to
/// the server.
fn assert_refused(server: &Server, service: &Ftpulse, words: &[&str]) {
    service.put("main", "file", b"secret");
    let line = service.wait_any(&["the destination gives no session", "upload failed"]);
    println!("{}: {line}", server.name);
    let error = line["error"].as_str().unwrap();
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    let log = server.log();
    let login = format!("USER {}", server.user);
    let user = log.lines().find(|line| line.contains(&login));
    assert_eq!(user, None, "{}", server.name);
}

#[test]
fn a_certificate_that_is_not_for_this_server_is_refused_and_the_way_out_said() {
    for start in STRICT {
        for (shown, words) in [
            (
                Shown::Expired,
                ["expired", "the server's owner has to renew its certificate"],
            ),
            (
                Shown::OtherHost,
                [
                    "ftp.example.net",
                    "the server's certificate is not for 127.",
                ],
            ),
            (
                Shown::SelfSigned,
                [
                    "UnknownIssuer",
                    "a self-signed certificate itself, in ca_file",
                ],
            ),
            (
                Shown::SelfSignedAuthority,
                [
                    "UnknownIssuer",
                    "a self-signed certificate itself, in ca_file",
                ],
            ),
        ] {
            let server = start(secured(|tls| tls.shown = shown));
            let service = settings(&server).start();
            assert_refused(&server, &service, &words);
        }
        let server = start(secured(|_| {}));
        let dir = support::temp_dir();
        let stranger = Authority::new().write(dir.path());
        let settings = settings(&server).key("routes.main.ca_file", stranger.display());
        let words = ["UnknownIssuer", "name the CA that has"];
        assert_refused(&server, &settings.start(), &words);
        let settings = self::settings(&server).without("routes.main.ca_file");
        assert_refused(&server, &settings.start(), &words);
    }
}

#[test]
fn a_reload_sees_that_the_ca_file_has_another_content() {
    let server = Server::proftpd(secured(|_| {}));
    let dir = support::temp_dir();
    let ca = Authority::new().write(dir.path());
    let settings = settings(&server).key("routes.main.ca_file", ca.display());
    let service = settings.start();
    assert_refused(&server, &service, &["UnknownIssuer"]);
    fs::copy(server.authority().unwrap(), &ca).unwrap();
    service.signal(Signal::HUP);
    service.wait_delivered("file");
    let changed = service.wait_log("route changed", |_| true);
    assert_eq!(changed["route"], "main");
}

#[test]
fn a_self_signed_server_is_trusted_by_its_own_certificate_or_not_verified_at_all() {
    for shown in [Shown::SelfSigned, Shown::SelfSignedAuthority] {
        let server = Server::vsftpd(secured(|tls| tls.shown = shown));
        let own = server.dir().join("server.pem");
        let trusting = settings(&server).key("routes.main.ca_file", own.display());
        let careless = settings(&server).key("routes.main.tls_verify", "false");
        for service in [trusting.start(), careless.start()] {
            service.put("main", "file", b"content");
            service.wait_delivered("file");
            fs::remove_file(server.path("in/file")).unwrap();
        }
    }
}

#[test]
fn a_servers_own_certificate_is_not_trusted_for_another_name() {
    let authority = Authority::new();
    let dir = support::temp_dir();
    let pair = authority.server(Shown::SelfSignedAuthority, [192, 0, 2, 7].into());
    let (own, key) = pair.write(dir.path(), "own");
    let server = Server::vsftpd(secured(|_| {}).line(format!(
        "rsa_cert_file={}\nrsa_private_key_file={}",
        own.display(),
        key.display()
    )));
    let service = settings(&server)
        .key("routes.main.ca_file", own.display())
        .start();
    assert_refused(
        &server,
        &service,
        &["the server's certificate is not for 127."],
    );
}

#[test]
fn a_server_without_tls_gets_no_password() {
    for server in Server::all(&Opts::default()) {
        let plain = server.url("in");
        for (scheme, words) in [
            ("ftpes://", ["offers no TLS", "nothing is sent in plain"]),
            ("ftps://", ["what came is no TLS", "ftpes://"]),
        ] {
            let url = plain.replace("ftp://", scheme);
            let settings = Settings::new()
                .quick()
                .route_to("main", &url, &server.password);
            let settings = settings.key("routes.main.tls_verify", "false");
            assert_refused(&server, &settings.start(), &words);
        }
    }
}

#[test]
fn a_client_certificate_is_shown_to_servers_that_want_one() {
    for version in VERSIONS {
        let opts = secured(|tls| {
            tls.wants_client = true;
            tls.only = Some(version);
        });
        let authority = Arc::clone(&opts.tls.as_ref().unwrap().authority);
        let dir = support::temp_dir();
        let (certificate, key) = authority.client().write(dir.path(), "client");
        let (strange, its_key) = Authority::new().client().write(dir.path(), "strange");
        let starts = [Server::vsftpd as Strict, Server::proftpd, Server::pyftpdlib];
        for server in starts.map(|start| start(opts.clone())) {
            let showing = |certificate: &Path, key: &Path| {
                settings(&server)
                    .key("routes.main.client_certificate", certificate.display())
                    .key("routes.main.client_key_file", key.display())
            };
            let service = settings(&server).start();
            assert_refused(&server, &service, &["client_certificate"]);
            let service = showing(&strange, &its_key).start();
            assert_refused(&server, &service, &["client_certificate"]);
            let service = showing(&certificate, &key).start();
            service.put("main", "file", b"content");
            service.wait_delivered("file");
            assert_clean(&service, 1);
        }
    }
}

/// A file that is being read by the server when its sessions are stopped.
fn stopped_in(server: &Server, service: &Ftpulse, size: usize) -> Vec<u8> {
    let bytes = content(7, size);
    service.put("main", "file.bin", &bytes);
    let folder = server.path("in");
    wait_until("the server has read some of it", PATIENCE, || {
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        files
            .filter_map(|f| f.metadata().ok())
            .any(|f| f.is_file() && f.len() > 0)
    });
    server.freeze_sessions();
    bytes
}

#[test]
fn a_peer_that_stops_reading_over_tls_is_found_fenced_quarantined_and_its_file_delivered() {
    for version in VERSIONS {
        for start in STRICT {
            let server = start(secured(|tls| tls.only = Some(version)));
            // A pair of a file that is resumed would not be held.
            let settings = settings(&server).key("routes.main.resume_over", "1GiB");
            let service = settings.start();
            let bytes = stopped_in(&server, &service, 64 << 20);
            let verdict = service.wait_log("deadlock found", |_| true);
            service.wait_delivered("file.bin");
            assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
            let incident = wait_incident(&service, "the incident is recovered from", |i| {
                i["recovered_at"].is_f64()
            });
            println!("{} {version}: {incident:#}", server.name);
            assert_eq!(verdict["cause"], "zero_window");
            assert_eq!(incident["phase"], "transfer");
            assert!(is_held(service.pid(), &incident), "open, untouched, ours");
            // What was late comes to nothing.
            server.thaw();
            service.put("main", "next", b"next");
            service.wait_delivered("next");
            assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
        }
    }
}

#[test]
fn a_reply_that_never_comes_over_tls_is_timed_out_resolved_and_the_file_delivered() {
    for version in VERSIONS {
        // It reads slowly, so that it can be stopped between the first byte and the 226; all
        // bytes are in its socket by then.
        let opts = secured(|tls| tls.only = Some(version)).line("local_max_rate=20000");
        let server = Server::vsftpd(opts.line("anon_max_rate=20000"));
        let service = settings(&server).start();
        let bytes = stopped_in(&server, &service, 50_000);
        let failed = service.wait_log("upload failed", |_| true);
        println!("{version}: {failed}");
        assert!(
            ["final_reply", "tls_close"]
                .iter()
                .any(|p| failed["phase"] == *p),
            "{failed}"
        );
        assert_eq!(failed["in_doubt"], Value::Bool(true));
        service.wait_delivered("file.bin");
        assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
        server.thaw();
        service.put("main", "next", b"next");
        service.wait_delivered("next");
        assert!(fs::read(server.path("in/file.bin")).unwrap() == bytes);
    }
}

#[test]
fn check_tries_a_server_over_tls_and_shows_what_was_agreed() {
    for start in STRICT {
        let server = start(secured(|_| {}));
        let settings = settings(&server);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
        command.args(["check", "--connect", "--canary"]).env_clear();
        let output = command.envs(settings.vars()).output().unwrap();
        let told = text(&output);
        println!("{told}");
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.contains("TLS 1.3"), "{told}");
    }
}
