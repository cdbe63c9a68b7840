//! `verify = "hash"`: what a server has is compared by its own hash before it is published. A real
//! mod_digest, servers that have only one of the older commands, one that spoils a byte, and ones
//! that have none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

mod support;

use std::fs;
use std::process::Command;

use support::servers::{Opts, Server};
use support::service::{Ftpulse, Settings, variable};
use support::watcher::{Watcher, is_final_name, sha256};
use support::{PATIENCE, content, temp_dir, wait_until};

const NAME: &str = "data.bin";

/// A pyftpdlib with one of the older commands.
fn older(verb: &str, hashes: &str) -> Opts {
    Opts::default().line(format!(
        r#"
import hashlib, zlib
handler.proto_cmds = dict(handler.proto_cmds)
handler.proto_cmds["{verb}"] = dict(perm="l", auth=True, arg=True, help="")
def tell(self, path):
    data = open(path, "rb").read()
    self.respond("250 " + {hashes})
handler.ftp_{verb} = tell
class more(handler):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._extra_feats = list(self._extra_feats) + ["{verb}"]
server.handler = more
"#
    ))
}

/// It spoils the middle byte of the first file that it gets, as a bad disk would.
fn spoils_a_byte(opts: Opts) -> Opts {
    opts.line(
        r#"
spoilt = []
def received(self, path):
    if not spoilt:
        spoilt.append(path)
        with open(path, "r+b") as f:
            f.seek(0, 2)
            middle = f.tell() // 2
            f.seek(middle)
            byte = f.read(1)[0]
            f.seek(middle)
            f.write(bytes([byte ^ 1]))
handler.on_file_received = received
"#,
    )
}

fn digest(engine: &str) -> Server {
    let modules = support::recipes::cache().join("root/usr/lib/proftpd");
    let lines = [
        format!("ModulePath {}", modules.display()),
        "LoadModule mod_digest.c".into(),
        engine.into(),
    ];
    Server::proftpd(Opts::default().line(lines.join("\n")))
}

fn service(server: &Server, verify: &str) -> Ftpulse {
    Settings::new()
        .quick()
        .key("routes.main.verify", verify)
        .key("routes.main.uploaders", "1")
        .route("main", server, "")
        .start()
}

/// What `ftpulse check --connect` says of the route, and its code.
fn check(server: &Server) -> (Option<i32>, String) {
    let dir = temp_dir();
    let output = Command::new(env!("CARGO_BIN_EXE_ftpulse"))
        .args(["check", "--connect"])
        .env_clear()
        .env(variable("routes.main.spool"), dir.path())
        .env(variable("routes.main.server"), server.url(""))
        .env(variable("routes.main.password"), &server.password)
        .env(variable("routes.main.verify"), "hash")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Sends one file and looks at it; answers the service.
fn delivered(server: &Server, verify: &str, size: usize) -> Ftpulse {
    let watcher = Watcher::start(&server.root, is_final_name);
    let service = service(server, verify);
    let bytes = content(3, size);
    watcher.allow(NAME, &bytes);
    service.put("main", NAME, &bytes);
    service.wait_delivered(NAME);
    service.wait_spool_empty("main", PATIENCE);
    assert_eq!(
        sha256(&fs::read(server.path(NAME)).unwrap()),
        sha256(&bytes)
    );
    watcher.assert_clean();
    service
}

fn error_of(line: &serde_json::Value) -> String {
    line["error"].as_str().unwrap().to_owned()
}

#[test]
fn proftpd_with_mod_digest_is_asked_by_hash_and_chosen_algorithm() {
    let server = digest("DigestAlgorithms all");
    let (code, said) = check(&server);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("HASH SHA-256"), "{said}");
    // Several megabytes: more than one chunk of the local hash.
    let service = delivered(&server, "hash", 5 << 20);
    assert!(service.logged("upload failed").is_empty());
    let commands = fs::read_to_string(server.dir().join("commands.log")).unwrap();
    assert!(commands.contains("HASH "), "{commands}");
    let at = |what: &str| commands.find(what).unwrap_or_else(|| panic!("{commands}"));
    assert!(at("STOR ") < at("HASH ."), "{commands}");
    assert!(at("HASH .") < at("RNFR "), "{commands}");
}

#[test]
fn an_algorithm_that_is_not_the_servers_first_is_chosen_by_opts() {
    let server = digest("DigestAlgorithms crc32 md5");
    let service = delivered(&server, "hash", 300_000);
    assert!(service.logged("upload failed").is_empty());
}

#[test]
fn each_older_command_is_understood() {
    let all = [
        ("XSHA256", "hashlib.sha256(data).hexdigest().upper()"),
        ("XSHA1", "hashlib.sha1(data).hexdigest()"),
        ("XMD5", "hashlib.md5(data).hexdigest()"),
        ("XCRC", "'%X' % zlib.crc32(data)"),
    ];
    std::thread::scope(|scope| {
        for (verb, hashes) in all {
            scope.spawn(move || {
                let server = Server::pyftpdlib(older(verb, hashes));
                let (code, said) = check(&server);
                assert_eq!(code, Some(0), "{said}");
                assert!(said.contains(verb), "{said}");
                let service = delivered(&server, "hash", 300_000);
                assert!(service.logged("upload failed").is_empty(), "{verb}");
            });
        }
    });
}

#[test]
fn a_spoilt_byte_is_an_error_with_both_hashes_and_the_file_is_sent_again() {
    let sha = "hashlib.sha256(data).hexdigest()";
    let server = Server::pyftpdlib(spoils_a_byte(older("XSHA256", sha)));
    let service = delivered(&server, "hash", 300_000);
    let failed = service.logged("upload failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let error = error_of(&failed[0]);
    let ours: String = sha256(&content(3, 300_000))
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(error.contains(&format!("{ours} here")), "{error}");
    let digits = |w: &&str| w.len() == 64 && w.bytes().all(|b| b.is_ascii_hexdigit());
    assert_eq!(
        error.split_whitespace().filter(digits).count(),
        2,
        "{error}"
    );
    wait_until("no temp name is left", PATIENCE, || {
        fs::read_dir(&server.root).unwrap().count() == 1
    });
}

/// The reason for the key: a size says nothing of it.
#[test]
fn a_spoilt_byte_passes_where_only_the_size_is_compared() {
    let sha = "hashlib.sha256(data).hexdigest()";
    let server = Server::pyftpdlib(spoils_a_byte(older("XSHA256", sha)));
    let service = service(&server, "size");
    let bytes = content(3, 300_000);
    service.put("main", NAME, &bytes);
    service.wait_delivered(NAME);
    assert_ne!(fs::read(server.path(NAME)).unwrap(), bytes);
}

#[test]
fn a_server_without_hashes_is_refused_and_gets_nothing() {
    let server = Server::vsftpd(Opts::default());
    let (code, said) = check(&server);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("tells no hash of a file"), "{said}");
    assert!(said.contains("routes.main.verify = \"size\""), "{said}");
    let service = service(&server, "hash");
    let source = service.put("main", NAME, b"stays");
    let failed = service.wait_log("upload failed", |_| true);
    assert!(error_of(&failed).contains("tells no hash"), "{failed}");
    assert!(source.exists());
    assert_eq!(fs::read_dir(&server.root).unwrap().count(), 0);
}

/// The server's answer about the hash is lost or refused, and there is no temp name to ask for:
/// the right size does not make a spoilt file a delivered one.
#[test]
fn straight_under_the_final_name_a_hash_that_was_not_told_proves_nothing() {
    for answer in ["self.close()", "self.respond(\"550 Busy.\")"] {
        let spoils = spoils_a_byte(older("XSHA256", "hashlib.sha256(data).hexdigest()"));
        let server = Server::pyftpdlib(spoils.line(format!(
            r#"
asked = []
plain = handler.ftp_XSHA256
def once(self, path):
    if asked:
        return plain(self, path)
    asked.append(path)
    {answer}
handler.ftp_XSHA256 = once
"#
        )));
        let service = Settings::new()
            .quick()
            .key("routes.main.verify", "hash")
            .key("routes.main.publish", "direct")
            .route("main", &server, "")
            .start();
        let bytes = content(3, 100_000);
        service.put("main", NAME, &bytes);
        service.wait_delivered(NAME);
        service.wait_spool_empty("main", PATIENCE);
        let found = fs::read(server.path(NAME)).unwrap();
        assert!(
            found == bytes,
            "{answer}: a spoilt file counts as delivered"
        );
    }
}

/// A file that is spoilt each time is not left under its final name, and is given up in its time.
#[test]
fn straight_under_the_final_name_a_file_that_is_always_spoilt_is_given_up() {
    let always = r#"
class never(list):
    def append(self, path):
        pass
spoilt = never()
"#;
    let spoils = spoils_a_byte(older("XSHA256", "hashlib.sha256(data).hexdigest()"));
    let server = Server::pyftpdlib(spoils.line(always));
    let service = Settings::new()
        .quick()
        .key("routes.main.verify", "hash")
        .key("routes.main.publish", "direct")
        .key("retry.give_up_after", "2s")
        .route("main", &server, "")
        .start();
    service.put("main", NAME, &content(3, 100_000));
    service.wait_log("file dead-lettered", |l| l["file"] == NAME);
    assert!(!server.path(NAME).exists(), "what is wrong is still there");
}
