//! The configuration as a stranger meets it: the built program, its exit code, its words.
//! Faults are checked on `ftpulse check`, sound inputs on `config::load`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no

use ftpulse::config::{self, Active, After, LogFormat, Order, Sources, Verify, keys};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Stands in every place where a secret can stand; no output may ever hold it.
const SECRET: &str = "hunter2-Zq9";

const SPOOL: (&str, &str) = ("FTPULSE__ROUTES__MAIN__SPOOL", "/spool");
const SERVER: (&str, &str) = (
    "FTPULSE__ROUTES__MAIN__SERVER",
    "ftp://user@ftp.example.net/incoming",
);
const TLS: (&str, &str) = ("FTPULSE__ROUTES__MAIN__SERVER", "ftpes://user@host/in");
const PASSWORD: (&str, &str) = ("FTPULSE__ROUTES__MAIN__PASSWORD", SECRET);
const MINIMAL: [(&str, &str); 3] = [SPOOL, SERVER, PASSWORD];

/// The same route as a file, with lines of its own below it.
fn file_with(lines: &str) -> String {
    format!(
        "[routes.main]\nspool = \"/spool\"\nserver = \"ftp://user@ftp.example.net/incoming\"\n\
         password = \"{SECRET}\"\n{lines}\n"
    )
}

fn check(file: Option<&Path>, env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
    command.arg("check").env_clear().envs(env.iter().copied());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(all).unwrap()
}

fn sources(file: Option<&Path>, env: &[(&str, &str)]) -> Sources {
    let env = env
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    Sources {
        file: file.map(Into::into),
        env,
    }
}

fn load(file: Option<&Path>, env: &[(&str, &str)]) -> config::Loaded {
    config::load(sources(file, env)).unwrap_or_else(|faults| panic!("{faults}"))
}

/// One bad input: laid over the smallest sound configuration (a value of "-" takes a variable
/// away), or a file; and the words that its message must hold.
enum Bad {
    Env(
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    ),
    File(&'static str, &'static [&'static str]),
    WholeFile(&'static str, &'static [&'static str]),
}

use Bad::{Env, File, WholeFile};

#[rustfmt::skip]
const BAD: &[Bad] = &[
    // Unknown names.
    Env(&[("FTPULSE__HEARTBEAT__INTERVALL", "2s")], &["heartbeat.intervall", "FTPULSE__HEARTBEAT__INTERVALL", "did you mean FTPULSE__HEARTBEAT__INTERVAL?"]),
    Env(&[("FTPULSE__ROUTES__MAIN__PASWORD", SECRET)], &["routes.main.pasword", "did you mean FTPULSE__ROUTES__MAIN__PASSWORD?"]),
    Env(&[("FTPULSE__HARTBEAT__MISSES", "2")], &["hartbeat.misses", "did you mean FTPULSE__HEARTBEAT__MISSES?"]),
    Env(&[("FTPULSE_HEARTBEAT_INTERVAL", "2s")], &["FTPULSE_HEARTBEAT_INTERVAL", "single underscores", "did you mean FTPULSE__HEARTBEAT__INTERVAL?"]),
    Env(&[("FTPULSE_ROUTES_MAIN_PASSWORD_FILE", SECRET)], &["did you mean FTPULSE__ROUTES__MAIN__PASSWORD_FILE?"]),
    Env(&[("FTPULSE__CONFIG", "/etc/f.toml")], &["config", "did you mean FTPULSE_CONFIG?"]),
    Env(&[("ftpulse__heartbeat__interval", "2s")], &["ftpulse__heartbeat__interval", "did you mean FTPULSE__HEARTBEAT__INTERVAL?"]),
    Env(&[("FTPULSE__HEARTBEAT", "2s")], &["heartbeat", "a section without a key", "FTPULSE__HEARTBEAT__KEY"]),
    File("setle = \"5s\"", &["routes.main.setle", "bad.toml:5", "did you mean routes.main.settle?"]),
    File("[quarantin]\ncapacity = 20", &["quarantin", "bad.toml:5", "did you mean [quarantine]?"]),
    File("[heartbeat]\nhold = \"2m\"", &["heartbeat.hold", "bad.toml:6", "did you mean quarantine.hold?"]),
    // Durations and sizes.
    File("[heartbeat]\ninterval = 2", &["heartbeat.interval", "bad.toml:6", "the number 2", "100ms to 60s", "write its unit, such as \"2s\""]),
    Env(&[("FTPULSE__TIMERS__REPLY", "60")], &["timers.reply", "FTPULSE__TIMERS__REPLY", "\"60\"", "such as \"60s\""]),
    Env(&[("FTPULSE__HEARTBEAT__INTERVAL", "50ms")], &["\"50ms\"", "100ms to 60s; default 2s", "within these bounds"]),
    Env(&[("FTPULSE__HEARTBEAT__INTERVAL", "61s")], &["\"61s\"", "100ms to 60s"]),
    Env(&[("FTPULSE__TIMERS__STALL", "0s")], &["timers.stall", "10ms to 24h"]),
    Env(&[("FTPULSE__TIMERS__DNS", "ten seconds")], &["\"ten seconds\"", "a duration with its unit"]),
    Env(&[("FTPULSE__TIMERS__DNS", "18446744073709551615s1000ms")], &["timers.dns", "10ms to 10m"]),
    Env(&[("FTPULSE__QUARANTINE__MAX_SEND_BYTES", "16777216")], &["write its unit, such as \"16777216B\""]),
    Env(&[("FTPULSE__QUARANTINE__MAX_SEND_BYTES", "16XB")], &["\"16XB\"", "64KiB to 4GiB"]),
    // Numbers, choices, other types.
    Env(&[("FTPULSE__HEARTBEAT__MISSES", "0")], &["heartbeat.misses", "a whole number, 1 to 100; default 3"]),
    Env(&[("FTPULSE__HEARTBEAT__MISSES", "three")], &["\"three\"", "without quotes or unit"]),
    File("[heartbeat]\nmisses = \"3\"", &["heartbeat.misses", "without quotes"]),
    File("[heartbeat]\nmisses = 99999999999999999999", &["99999999999999999999", "1 to 100", "within these bounds"]),
    File("uploaders = 0", &["routes.main.uploaders", "1 to 256"]),
    Env(&[("FTPULSE__RETRY__JITTER", "1.5")], &["retry.jitter", "a number, 0 to 1; default 0.2"]),
    Env(&[("FTPULSE__RETRY__JITTER", "NaN")], &["retry.jitter", "a number, 0 to 1"]),
    Env(&[("FTPULSE__LOG__LEVEL", "warn")], &["\"warn\"", "critical, error, warning, info, debug, trace", "did you mean \"warning\"?"]),
    Env(&[("FTPULSE__ROUTES__MAIN__RECURSIVE", "yes")], &["routes.main.recursive", "true or false"]),
    File("recursive = \"false\"", &["routes.main.recursive", "true or false"]),
    Env(&[("FTPULSE__HTTP__LISTEN", "localhost:9188")], &["http.listen", "an IP address and a port", "127.0.0.1:9188"]),
    Env(&[("FTPULSE__ROUTES__MAIN__INCLUDE", "*.{csv")], &["routes.main.include", "unclosed alternate group"]),
    Env(&[("FTPULSE__ROUTES__MAIN__EXCLUDE", "/tmp/*")], &["\"/tmp/*\"", "remove the slash"]),
    Env(&[("FTPULSE__ROUTES__MAIN__EXCLUDE", "a,,b")], &["an empty pattern", "comma too many"]),
    File("include = \"*.csv\"", &["routes.main.include", "bad.toml:5", "write a list such as"]),
    File("[heartbeat.interval]\nseconds = 2", &["heartbeat.interval", "a single value"]),
    File("[http]\nlisten = [\"127.0.0.1:1\"]", &["http.listen", "a list"]),
    WholeFile("heartbeat = \"hunter2-Zq9\"", &["heartbeat", "write the section's header [heartbeat]"]),
    WholeFile("[[routes]]\nname = \"main\"", &["routes", "[routes.NAME]"]),
    // Routes.
    Env(&[("FTPULSE__ROUTES__MAIN__SPOOL", "-"), ("FTPULSE__ROUTES__MAIN__SERVER", "-"), ("FTPULSE__ROUTES__MAIN__PASSWORD", "-")], &["routes, not set", "no route at all", "FTPULSE__ROUTES__MAIN__SPOOL=/spool"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SPOOL", "-")], &["routes.main.spool, not set", "named by FTPULSE__ROUTES__MAIN__PASSWORD", "set FTPULSE__ROUTES__MAIN__SPOOL=/spool"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "-")], &["routes.main.server, not set", "set FTPULSE__ROUTES__MAIN__SERVER=ftpes://"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SPOOL", "spool")], &["\"spool\"", "an absolute path", "from / on"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SPOOL", "/a/../b")], &["\"/a/../b\"", "no .. in it"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SPOOL", "/")], &["the root of the file system", "name the folder"]),
    WholeFile("[routes.Main-1]\nspool = \"/spool\"", &["the route name \"Main-1\"", "bad.toml:1", "did you mean [routes.main_1]?"]),
    File("[routes.two]\nspool = \"/spool/\"\nserver = \"ftp://u@h\"\npassword = \"\"", &["routes.two.spool", "is also routes.main.spool", "a folder of its own"]),
    File("[routes.two]\nspool = \"/spool/two\"\nserver = \"ftp://u@h\"\npassword = \"\"", &["lies inside routes.main.spool", "routes.main.recursive = false"]),
    File("dead_letter = \"/spool\"", &["routes.main.dead_letter", "is the spool"]),
    File("after = \"archive\"\narchive = \"/\"", &["routes.main.archive", "contains the spool"]),
    File("after = \"archive\"", &["routes.main.after", "no archive folder", "set routes.main.archive"]),
    File("archive = \"/archive\"", &["routes.main.archive", "nothing would be archived"]),
    File("after = \"archive\"\narchive = \"/d\"\ndead_letter = \"/d\"", &["routes.main.dead_letter", "also the archive"]),
    File("[state]\ndir = \"/spool/state\"", &["state.dir", "lies in routes.main.spool", "outside every spool"]),
    File("uploaders = 17", &["quarantine.capacity", "16 places for 17 uploaders", "set quarantine.capacity to 17"]),
    File("[retry]\nfirst = \"10m\"", &["retry.first", "10m", "longer than retry.max 5m (default)"]),
    // The server and its user.
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user:hunter2-Zq9@host/in")], &["ftp://user:(secret)@host/in", "holds a password", "password_file"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user:hunter2-Zq9@host:99999/in")], &["(secret)", "invalid port number"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "user:hunter2-Zq9@host/in")], &["no scheme", "write ftpes:// or ftp:// before it"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftpes://user@host//in")], &["an empty part in its path"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftps://user@0x7f.1")], &["would be read as 127.0.0.1"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftps://user:hunter2-Zq9@host:0")], &["(secret)", "ftpes://user@host:port/folder (explicit TLS), ftps:// (implicit TLS) or ftp:// (plain)"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftps://user@host:0")], &["port 0", "none for the usual one"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "https://user@host/in")], &["no FTP server", "write ftpes://"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "sftp://user@host/in")], &["no FTP server", "ftps:// or ftp://user@host/folder"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://host/in")], &["routes.main.user, not set", "no user", "ftpes://USER@host"]),
    Env(&[("FTPULSE__ROUTES__MAIN__USER", "other")], &["routes.main.user", "\"other\", but \"user\" in routes.main.server", "remove one of both"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://us%0D%0AQUIT@host/in")], &["CR, LF and NUL"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@host/a%0Ab")], &["its folder", "CR, LF and NUL"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@host//abs")], &["an empty part in its path", "%2F at the path's start"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@host/a/../b")], &["its path holds . or .."]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://me@corp.com@host/in")], &["its user holds an @", "write %40"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@host/50%")], &["write %25"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@host/a#b")], &["%23 for #"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user:21/hunter2-Zq9@host"), ("FTPULSE__ROUTES__MAIN__USER", "user")], &["its path holds an @", "write %40"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@host/in;type=a")], &["always binary", "remove ;type="]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://user@0x7f.1/in")], &["would be read as 127.0.0.1"]),
    // TLS.
    File("ca_file = \"/etc/ca.pem\"", &["routes.main.ca_file", "bad.toml:5", "routes.main.server", "bad.toml:3) is plain ftp://", "write ftpes:// in routes.main.server, or remove ca_file"]),
    File("client_certificate = \"/etc/c.pem\"\nclient_key = \"hunter2-Zq9\"", &["routes.main.client_certificate", "routes.main.client_key", "2 faults", "remove client_key"]),
    Env(&[("FTPULSE__ROUTES__MAIN__TLS_VERIFY", "false")], &["routes.main.tls_verify, from FTPULSE__ROUTES__MAIN__TLS_VERIFY", "plain ftp://", "or remove tls_verify"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__CA_FILE", "/no/such.pem")], &["routes.main.ca_file, from FTPULSE__ROUTES__MAIN__CA_FILE", "\"/no/such.pem\": No such file", "in PEM", "what the system trusts"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__CA_FILE", "/dev/null")], &["routes.main.ca_file", "not a regular file"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__CA_FILE", "ca.pem")], &["routes.main.ca_file", "\"ca.pem\"", "an absolute path"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__TLS_VERIFY", "no")], &["routes.main.tls_verify", "true or false"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__CLIENT_CERTIFICATE", "/etc/c.pem")], &["routes.main.client_certificate", "a certificate without its key", "set routes.main.client_key_file"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__CLIENT_KEY", SECRET)], &["routes.main.client_key", "a key without its certificate (not shown)", "set routes.main.client_certificate"]),
    Env(&[TLS, ("FTPULSE__ROUTES__MAIN__CLIENT_KEY", SECRET), ("FTPULSE__ROUTES__MAIN__CLIENT_KEY_FILE", "/x")], &["both routes.main.client_key", "remove one of both"]),
    Env(&[TLS, ("SSL_CERT_FILE", "/no/such.pem")], &["routes.main.ca_file, not set", "no certificate that this system trusts: ", "/no/such.pem", "install the package ca-certificates, or set FTPULSE__ROUTES__MAIN__CA_FILE"]),
    Env(&[("FTPULSE__TIMERS__TLS", "1h")], &["timers.tls", "10ms to 10m; default 10s"]),
    // Active mode.
    File("mode = \"activ\"", &["routes.main.mode", "passive, active", "did you mean \"active\"?"]),
    File("active_address = \"192.0.2.7\"", &["routes.main.active_address", "but routes.main.mode is passive", "set routes.main.mode to active, or remove active_address"]),
    File("active_ports = \"5000-5100\"", &["routes.main.active_ports", "or remove active_ports"]),
    File("mode = \"active\"\nactive_address = \"ftp.example.net\"", &["routes.main.active_address", "\"ftp.example.net\"", "the IP address of one host", "no port, no host name"]),
    File("mode = \"active\"\nactive_address = \"0.0.0.0\"", &["routes.main.active_address", "the IP address of one host"]),
    File("mode = \"active\"\nactive_ports = \"50000\"", &["routes.main.active_ports", "\"50000\"", "two ports with - between them", "such as \"50000-50100\""]),
    File("mode = \"active\"\nactive_ports = 50000", &["routes.main.active_ports", "the number 50000", "such as \"50000-50100\""]),
    File("mode = \"active\"\nactive_ports = \"50100-50000\"", &["routes.main.active_ports", "the lower one first"]),
    File("mode = \"active\"\nactive_ports = \"0-70000\"", &["routes.main.active_ports", "1 to 65535"]),
    File("mode = \"active\"\nuploaders = 3\nactive_ports = \"50000-50001\"", &["routes.main.active_ports", "2 ports for 3 uploaders", "at least as many ports as uploaders, here 3", "lower routes.main.uploaders"]),
    Env(&[("FTPULSE__ROUTES__MAIN__SERVER", "ftp://u@[::1]"), ("FTPULSE__ROUTES__MAIN__MODE", "active"), ("FTPULSE__ROUTES__MAIN__ACTIVE_ADDRESS", "127.0.0.1")], &["routes.main.active_address", "127.0.0.1, but the server's address is ::1", "IPv4 or IPv6"]),
    Env(&[("FTPULSE__TIMERS__LISTEN", "0s")], &["timers.listen", "10ms to 24h; default 60s"]),
    // Secrets.
    Env(&[("FTPULSE__ROUTES__MAIN__PASSWORD", "-")], &["routes.main.password, not set", "set FTPULSE__ROUTES__MAIN__PASSWORD_FILE="]),
    Env(&[("FTPULSE__ROUTES__MAIN__PASSWORD_FILE", "/run/x")], &["both routes.main.password (FTPULSE__ROUTES__MAIN__PASSWORD) and routes.main.password_file", "remove one of both"]),
    Env(&[("FTPULSE__ROUTES__MAIN__PASSWORD", "-"), ("FTPULSE__ROUTES__MAIN__PASSWORD_FILE", "hunter2-Zq9")], &["not shown: it may be a secret", "the absolute path of a file"]),
    Env(&[("FTPULSE__ROUTES__MAIN__PASSWORD", "-"), ("FTPULSE__ROUTES__MAIN__PASSWORD_FILE", "/no/such/file")], &["\"/no/such/file\"", "No such file", "FTPULSE__ROUTES__MAIN__PASSWORD_FILE"]),
    Env(&[("FTPULSE__ROUTES__MAIN__PASSWORD", "-"), ("FTPULSE__ROUTES__MAIN__PASSWORD_FILE", "/dev/zero")], &["not a regular file"]),
    Env(&[("FTPULSE__ROUTES__MAIN__PASSWORD", "hunter2-Zq9\nQUIT")], &["CR, LF or NUL (not shown)", "remove the line break"]),
    Env(&[("FTPULSE__HTTP__TOKEN", "hunter2-Zq9 x")], &["http.token", "visible ASCII"]),
    WholeFile("[routes.main]\npassword = 123456789", &["routes.main.password", "a whole number (not shown", "write it in quotes"]),
    // The file itself.
    WholeFile("[routes.main]\nspool = \"/spool\"\npassword = \"hunter2-Zq9\n", &["configuration file", "bad.toml:3", "a syntax error"]),
    WholeFile("[routes.main]\npassword = hunter2-Zq9\n", &["configuration file", "bad.toml:2", "texts stand in quotes"]),
    WholeFile("[log]\nlevel = \"info\"\nlevel = \"debug\"\n", &["bad.toml:3", "duplicate key"]),
    Env(&[("FTPULSE_CONFIG", "/no/such.toml")], &["configuration file, from FTPULSE_CONFIG", "\"/no/such.toml\"", "No such file"]),
    Env(&[("FTPULSE_CONFIG", "/")], &["not a regular file", "name another file"]),
    Env(&[("FTPULSE_CONFIG", "")], &["FTPULSE_CONFIG", "an empty text", "unset it"]),
    Env(&[("FTPULSE__HEARTBEAT__POLICY", "leese")], &["heartbeat.policy", "did you mean \"lease\"?"]),
    Env(&[("FTPULSE__HEARTBEAT__POLICY", "lease"), ("FTPULSE__HEARTBEAT__INTERVAL", "4s")], &["heartbeat.lease", "at least three intervals, here 12s"]),
    Env(&[("FTPULSE__HEARTBEAT__POLICY", "lease"), ("FTPULSE__HEARTBEAT__INTERVAL", "100ms")], &["heartbeat.lease_floor", "at most heartbeat.interval"]),
    File("ready_suffix = \"\"", &["routes.main.ready_suffix", "an empty text", "1 to 100 bytes, such as .ready", "remove the key"]),
    Env(&[("FTPULSE__ROUTES__MAIN__READY_SUFFIX", "")], &["routes.main.ready_suffix, from FTPULSE__ROUTES__MAIN__READY_SUFFIX", "every file would be its own marker"]),
    File("ready_suffix = \"/done\"", &["routes.main.ready_suffix", "beside its file, in the same folder", "write another suffix"]),
    File("ready_suffix = \".tmp\"", &["routes.main.ready_suffix", "work in progress and never looked at"]),
    File("ready_suffix = \".ok.part\"", &["routes.main.ready_suffix", "work in progress and never looked at"]),
    File("ready_suffix = \".o\\nk\"", &["routes.main.ready_suffix", "a control character"]),
    File("ready_suffix = 1", &["routes.main.ready_suffix", "the number 1", "write it in quotes"]),
    File("temp_pattern = \"{name}.part\"", &["routes.main.temp_pattern", "without {token}", "this agent's mark", "such as {name}.{token}.part", "remove the key"]),
    File("temp_pattern = \"{token}-{name}\"", &["routes.main.temp_pattern", "ends like the final name", "*.csv"]),
    File("temp_pattern = \"tmp/{token}\"", &["routes.main.temp_pattern", "with a /", "in its folder"]),
    Env(&[("FTPULSE__ROUTES__MAIN__TEMP_PATTERN", "{name}.{agent}.{token}")], &["routes.main.temp_pattern, from FTPULSE__ROUTES__MAIN__TEMP_PATTERN", "neither {name} nor {token}"]),
    File("remote_marker = \"done\"", &["routes.main.remote_marker", "without {name}", "share one marker", "such as {name}.done", "remove the key"]),
    File("remote_marker = \"{name}\"", &["routes.main.remote_marker", "would replace the file"]),
    File("direction = \"got\"", &["routes.main.direction", "put, get", "did you mean \"get\"?"]),
    File("direction = \"get\"\nready_suffix = \".ok\"", &["routes.main.ready_suffix", "direction is \"get\"", "about uploads only"]),
    File("direction = \"get\"\npublish = \"direct\"", &["routes.main.publish", "direction is \"get\""]),
    File("direction = \"get\"\ntemp_pattern = \"{name}.{token}.x\"", &["routes.main.temp_pattern", "remove it"]),
    File("direction = \"get\"\nremote_marker = \"{name}.done\"", &["routes.main.remote_marker", "remove it"]),
    File("direction = \"get\"\nafter = \"archive\"", &["routes.main.after", "no archive folder"]),
    File("direction = \"get\"\nafter = \"archive\"\narchive = \"done\"", &["routes.main.archive", "an absolute path"]),
    File("direction = \"get\"\npoll = \"1ms\"", &["routes.main.poll", "1s to 24h"]),
    Env(&[("FTPULSE__WATCHDOG__INTERVAL", "1s")], &["watchdog.interval, from FTPULSE__WATCHDOG__INTERVAL", "watchdog.window 3s, with watchdog.interval 1s and watchdog.misses 5", "a window of misses + 1 intervals, here 6s"]),
    Env(&[("FTPULSE__WATCHDOG__PULSE_INTERVAL", "6s")], &["watchdog.pulse_interval, from", "watchdog.software_interval 10s", "at least two pulses, here 12s"]),
    Env(&[("FTPULSE__WATCHDOG__BEATS", "if_send")], &["watchdog.beats", "required, if_sent", "did you mean \"if_sent\"?"]),
    Env(&[("FTPULSE__WATCHDOG__KIND_MISSES", "0")], &["watchdog.kind_misses", "1 to 100"]),
    Env(&[("FTPULSE__WATCHDOG__START_TIMEOUT", "1ms")], &["watchdog.start_timeout", "1s to 1h"]),
    Env(&[("FTPULSE__RETRY__GIVE_UP_AFTER", "1ms")], &["retry.give_up_after", "1s to 365d"]),
];

impl Bad {
    fn run(&self, file: &Path) -> (String, Output, &[&str]) {
        let with_file = |content: String, words| {
            fs::write(file, &content).unwrap();
            (content, check(Some(file), &[]), words)
        };
        match self {
            Env(over, words) => {
                let mut env: Vec<_> = MINIMAL.to_vec();
                env.retain(|(name, _)| over.iter().all(|(other, _)| other != name));
                env.extend(over.iter().filter(|(_, value)| *value != "-"));
                let lines = over.iter().map(|(name, value)| match *value {
                    "-" => format!("{name} unset\n"),
                    value => format!("{name}={value:?}\n"),
                });
                (lines.collect(), check(None, &env), words)
            }
            File(lines, words) => {
                let (_, output, words) = with_file(file_with(lines), *words);
                (format!("below a sound route: {lines}\n"), output, words)
            }
            WholeFile(content, words) => with_file((*content).into(), *words),
        }
    }
}

#[test]
fn table_of_bad_inputs_each_ends_with_2_and_says_what_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let mut wrong = String::new();
    for (number, bad) in (1..).zip(BAD) {
        let (input, output, words) = bad.run(&file);
        let message = text(&output).replace(&*folder.path().to_string_lossy(), "/etc");
        println!(
            "--- {number}\n{}{message}",
            input.replace(SECRET, "(the secret)")
        );
        if output.status.code() != Some(2) {
            writeln!(
                wrong,
                "{number}: exit {:?}\n{input}{message}",
                output.status.code()
            )
            .unwrap();
        }
        for word in words.iter().filter(|word| !message.contains(**word)) {
            writeln!(wrong, "{number}: no {word:?} in\n{message}").unwrap();
        }
        for part in [
            "   found    ",
            "   allowed  ",
            "   do       ",
            "nothing was started",
        ] {
            assert!(
                message.contains(part),
                "{number}: no {part:?} in\n{message}"
            );
        }
        assert!(
            !message.contains(SECRET),
            "{number}: the secret is in\n{message}"
        );
        assert!(
            !message.contains("123456789"),
            "{number}: the secret is in\n{message}"
        );
    }
    println!("{} bad inputs", BAD.len());
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn active_mode_has_an_address_and_ports_or_leaves_them_to_the_system() {
    let mut env = MINIMAL.to_vec();
    assert_eq!(load(None, &env).config.routes["main"].active, None);
    env.push(("FTPULSE__ROUTES__MAIN__MODE", "active"));
    let (address, ports) = (None, None);
    let active = load(None, &env).config.routes["main"].active.clone();
    assert_eq!(active, Some(Active { address, ports }));
    env.extend([
        ("FTPULSE__ROUTES__MAIN__ACTIVE_ADDRESS", "2001:db8::7"),
        ("FTPULSE__ROUTES__MAIN__ACTIVE_PORTS", "50000 - 50001"),
        ("FTPULSE__TIMERS__LISTEN", "7s"),
        ("FTPULSE__TIMERS__TLS", "8s"),
    ]);
    let config = load(None, &env).config;
    let (address, ports) = ("2001:db8::7".parse().ok(), Some(50_000..=50_001));
    assert_eq!(
        config.routes["main"].active,
        Some(Active { address, ports })
    );
    assert_eq!(config.timers.listen, Duration::from_secs(7));
    assert_eq!(config.timers.tls, Duration::from_secs(8));
}

#[test]
fn all_faults_of_all_layers_come_out_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.toml");
    let lines = "settle = 5\norder = \"random\"\n[heartbeat]\nmises = 3\n[retry]\nfirst = \"10m\"";
    fs::write(&file, file_with(lines)).unwrap();
    let env = [
        ("FTPULSE__TIMERS__DNS", "0s"),
        ("FTPULSE_LOG_LEVEL", "info"),
        ("FTPULSE__X", "1"),
    ];
    let message = text(&check(Some(&file), &env));
    assert!(
        message.contains("7 faults in the configuration"),
        "{message}"
    );
    for name in [
        "routes.main.settle",
        "routes.main.order",
        "heartbeat.mises",
        "retry.first",
        "timers.dns",
        "FTPULSE_LOG_LEVEL",
        "\n3. x, from FTPULSE__X",
    ] {
        assert!(message.contains(name), "no {name} in\n{message}");
    }
}

#[test]
fn a_broken_file_does_not_hide_the_faults_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.toml");
    fs::write(&file, "[log\nlevel = 3\n").unwrap();
    let message = text(&check(Some(&file), &[("FTPULSE__TIMERS__DNS", "0s")]));
    assert!(
        message.contains("broken.toml:1") && message.contains("timers.dns"),
        "{message}"
    );
    assert!(
        !message.contains("no route"),
        "what the file may hold is not missed:\n{message}"
    );
}

#[test]
fn a_variable_that_is_not_utf8_is_a_fault_and_no_panic() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
    let bytes = std::ffi::OsStr::from_bytes(b"inf\xffo");
    command
        .arg("check")
        .env_clear()
        .envs(MINIMAL)
        .env("FTPULSE__LOG__LEVEL", bytes);
    command.env("SOMETHING_ELSE", bytes);
    let output = command.output().unwrap();
    let message = text(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("FTPULSE__LOG__LEVEL") && message.contains("UTF-8"),
        "{message}"
    );
    assert!(message.contains("1 fault "), "{message}");
}

#[test]
fn wrong_usage_ends_with_2_and_help_shows_an_example() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ftpulse"));
        command.args(arguments).env_clear().output().unwrap()
    };
    assert_eq!(run(&["check", "--confg", "x"]).status.code(), Some(2));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    for arguments in [&["--help"][..], &["check", "--help"]] {
        let help = run(arguments);
        assert_eq!(help.status.code(), Some(0));
        assert!(text(&help).contains("Example:"), "{}", text(&help));
    }
}

#[test]
fn three_variables_are_a_whole_service() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("ftp");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let env = [
        SPOOL,
        SERVER,
        (
            "FTPULSE__ROUTES__MAIN__PASSWORD_FILE",
            secret.to_str().unwrap(),
        ),
    ];
    let loaded = load(None, &env);
    let route = &loaded.config.routes["main"];
    assert_eq!(route.server.key(), "user@ftp.example.net:21");
    assert_eq!(route.server.folder, "incoming");
    assert_eq!(route.server.password.reveal(), SECRET);
    assert_eq!((route.uploaders, route.recursive), (2, true));
    assert_eq!((route.order, route.verify), (Order::Oldest, Verify::Size));
    assert_eq!(route.after, After::Delete);
    assert_eq!(
        (&route.include[..], route.exclude.len()),
        (&["*".to_owned()][..], 0)
    );
    assert_eq!(route.dead_letter, Path::new("/spool/.dead-letter"));
    let config = &loaded.config;
    assert_eq!(config.heartbeat.interval, Duration::from_secs(2));
    assert_eq!(config.quarantine.max_send_bytes, 16 << 20);
    assert_eq!(config.timers.transfer_put, None);
    assert_eq!(config.log.format, LogFormat::Auto);
    assert!(
        loaded.warnings[0].contains("in clear"),
        "{:?}",
        loaded.warnings
    );

    let output = check(None, &env);
    let report = text(&output);
    println!("{report}");
    assert_eq!(output.status.code(), Some(0), "{report}");
    for words in [
        "heartbeat.interval               2s ",
        "routes.main.password             (secret)",
        "named by FTPULSE__ROUTES__MAIN__PASSWORD_FILE",
        "routes.main.user                 user ",
        "/spool/.dead-letter",
        "warning: routes.main.server: plain ftp://",
    ] {
        assert!(report.contains(words), "no {words:?} in\n{report}");
    }
    assert!(!report.contains(SECRET) && !format!("{loaded:?}").contains(SECRET));
}

#[test]
fn a_later_layer_wins_and_each_setting_knows_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let lines = "exclude = [\"*.bak\", \"old/**\"]\n[heartbeat]\nmisses = 5\ninterval = \"1s\"";
    fs::write(&file, file_with(lines)).unwrap();
    let env = [
        ("FTPULSE__HEARTBEAT__INTERVAL", "500ms"),
        ("FTPULSE__ROUTES__MAIN__INCLUDE", "*.{csv,txt}, out/**"),
        ("FTPULSE_CONFIG", "/no/such/file: --config wins"),
    ];
    let loaded = load(Some(&file), &env);
    assert_eq!(loaded.config.heartbeat.interval, Duration::from_millis(500));
    assert_eq!(loaded.config.heartbeat.misses, 5);
    assert_eq!(
        loaded.config.routes["main"].include,
        ["*.{csv,txt}", "out/**"]
    );
    assert_eq!(loaded.config.routes["main"].exclude, ["*.bak", "old/**"]);
    let origin = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key);
        setting.map(|setting| setting.origin.replace(folder.path().to_str().unwrap(), ""))
    };
    assert_eq!(
        origin("heartbeat.interval").as_deref(),
        Some("FTPULSE__HEARTBEAT__INTERVAL")
    );
    assert_eq!(origin("heartbeat.misses").as_deref(), Some("/f.toml:7"));
    assert_eq!(origin("timers.reply").as_deref(), Some("default"));
    assert_eq!(origin("routes.main.user").as_deref(), Some("/f.toml:3"));

    let named = [("FTPULSE_CONFIG", file.to_str().unwrap())];
    assert_eq!(load(None, &named).config.heartbeat.misses, 5);
}

#[test]
fn a_secret_in_the_file_and_its_file_in_the_environment_contradict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    fs::write(&file, file_with("")).unwrap();
    let env = [("FTPULSE__ROUTES__MAIN__PASSWORD_FILE", "/run/secrets/ftp")];
    let message = text(&check(Some(&file), &env));
    assert!(
        message.contains("f.toml:4") && message.contains("remove one of both"),
        "{message}"
    );
}

#[test]
fn of_a_secret_file_one_trailing_newline_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let env = [
        SPOOL,
        SERVER,
        (
            "FTPULSE__ROUTES__MAIN__PASSWORD_FILE",
            path.to_str().unwrap(),
        ),
    ];
    for (content, password) in [("a b", "a b"), ("a b\n", "a b"), (" x \r\n", " x ")] {
        fs::write(&path, content).unwrap();
        let loaded = load(None, &env);
        assert_eq!(
            loaded.config.routes["main"].server.password.reveal(),
            password
        );
    }
    for content in ["", "\n", "a\n\n", "a\nb"] {
        fs::write(&path, content).unwrap();
        assert_eq!(check(None, &env).status.code(), Some(2), "{content:?}");
    }
}

#[test]
fn servers_are_read_as_rfc_1738_has_it() {
    for (url, host, port, folder) in [
        ("ftp://u@[2001:db8::1]:2121/in", "2001:db8::1", 2121, "in"),
        ("ftp://u@[::1]", "::1", 21, ""),
        ("ftp://u@192.0.2.7/", "192.0.2.7", 21, ""),
        ("FTP://u@Host.Example/a/b/", "host.example", 21, "a/b"),
        ("ftp://u@h/%2Fvar/in", "h", 21, "/var/in"),
        ("ftp://u@h/%2f", "h", 21, "/"),
        ("ftp://u@h/a%20b/%C3%BC%3B%25", "h", 21, "a b/ü;%"),
        ("ftp://u@h/grün", "h", 21, "grün"),
    ] {
        let env = [SPOOL, PASSWORD, ("FTPULSE__ROUTES__MAIN__SERVER", url)];
        let server = &load(None, &env).config.routes["main"].server.clone();
        assert_eq!(
            (&*server.host, server.port, &*server.folder),
            (host, port, folder),
            "{url}"
        );
    }
    let env = [
        SPOOL,
        PASSWORD,
        ("FTPULSE__ROUTES__MAIN__SERVER", "ftp://me%40corp%3a@h"),
    ];
    assert_eq!(
        load(None, &env).config.routes["main"].server.user,
        "me@corp:"
    );
    let env = [
        SPOOL,
        ("FTPULSE__ROUTES__MAIN__PASSWORD", ""),
        ("FTPULSE__ROUTES__MAIN__SERVER", "ftp://h"),
        ("FTPULSE__ROUTES__MAIN__USER", "anonymous"),
    ];
    let loaded = load(None, &env);
    assert_eq!(loaded.config.routes["main"].server.user, "anonymous");
    assert_eq!(loaded.warnings, [""; 0], "an empty password cannot leak");
}

#[test]
fn a_spool_below_one_that_is_not_recursive_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let lines = "recursive = false\n[routes.two]\nspool = \"/spool/two\"\n\
                 server = \"ftp://u@h\"\npassword = \"\"\nafter = \"archive\"\narchive = \"/spool/two/.old\"";
    fs::write(&file, file_with(lines)).unwrap();
    let loaded = load(Some(&file), &[]);
    assert_eq!(
        loaded.config.routes["two"].after,
        After::Archive("/spool/two/.old".into())
    );
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_our_name_do_no_harm() {
    let mut env = MINIMAL.to_vec();
    env.extend([
        ("FTPULSE_SERVICE_HOST", "10.0.0.1"),
        ("FTPULSE_SERVICE_PORT_METRICS", "9188"),
        ("FTPULSE_PORT", "tcp://10.0.0.1:9188"),
        ("FTPULSE_PORT_9188_TCP_ADDR", "10.0.0.1"),
        ("FTPULSE_PASSWORD", SECRET),
        ("FTPULSE_FLAVOUR", "x"),
    ]);
    let loaded = load(None, &env);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("FTPULSE_FLAVOUR"));
}

proptest::proptest! {
    #[test]
    fn no_text_in_any_setting_makes_loading_panic(
        index in 0..keys::KEYS.len(),
        value in "\\PC{0,40}|[0-9.]{1,24}[a-zA-Z ]{0,4}|ftp://[-a-z0-9:@/%.\\[\\]]{0,30}",
    ) {
        let name = keys::variable(&keys::KEYS[index].name.replace("NAME", "main"));
        let mut env = MINIMAL.to_vec();
        env.retain(|(other, _)| *other != name);
        env.push((&name, &value));
        if let Err(faults) = config::load(sources(None, &env)) {
            let text = faults.to_string();
            assert!(!text.contains(SECRET), "{text}");
            assert!(faults.iter().all(|fault| !fault.way_out.is_empty()));
        }
    }
}

/// What a fault proposes would be taken: no example lies outside the bounds itself.
#[test]
fn every_example_of_a_refused_duration_or_size_is_within_the_bounds() {
    use keys::Kind::{Duration, DurationOrNone, Size, SizeOrNone};
    let mut tried = 0;
    let bounded = |key: &&keys::Key| {
        let of_size = matches!(
            key.kind,
            Duration(..) | DurationOrNone(..) | Size(..) | SizeOrNone(..)
        );
        of_size
    };
    for key in keys::KEYS.iter().filter(bounded) {
        let name = key.name.replace("NAME", "main");
        let refusals = |value: &str| {
            let variable = keys::variable(&name);
            let mut env = MINIMAL.to_vec();
            env.push((&variable, value));
            let faults = config::load(sources(None, &env)).err();
            let told: Vec<String> = faults
                .iter()
                .flat_map(|faults| faults.iter())
                .filter(|fault| fault.key == name && fault.way_out.starts_with("write "))
                .map(|fault| fault.way_out.clone())
                .collect();
            told
        };
        for wrong in [
            "1", "7", "500", "86400", "0", "1ns", "9999d", "1B", "9999EiB", "soon",
        ] {
            for way_out in refusals(wrong) {
                let (_, examples) = way_out.split_once("such as ").expect(&way_out);
                for example in examples.split(", ").flat_map(|part| part.split(" or ")) {
                    let again = refusals(example.trim_matches('"'));
                    assert!(again.is_empty(), "{name}={wrong}: {way_out}: {again:?}");
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} examples are within their bounds");
    assert!(tried > 200, "{tried}");
}

#[test]
fn a_setting_that_does_nothing_beside_the_others_is_told() {
    let warned = |more: &[(&str, &str)]| {
        let env = [&MINIMAL[..], more].concat();
        load(None, &env).warnings.join("\n")
    };
    let lease = ("FTPULSE__HEARTBEAT__LEASE", "20s");
    let floor = ("FTPULSE__HEARTBEAT__LEASE_FLOOR", "1s");
    let told = warned(&[lease, floor]);
    for name in [
        "heartbeat.lease (from FTPULSE__HEARTBEAT__LEASE)",
        "heartbeat.lease_floor (from ",
    ] {
        let line = told
            .lines()
            .find(|line| line.starts_with(name))
            .expect(&told);
        assert!(
            line.ends_with("has no effect: heartbeat.policy is not \"lease\""),
            "{line}"
        );
    }
    let policy = ("FTPULSE__HEARTBEAT__POLICY", "lease");
    assert!(!warned(&[lease, floor, policy]).contains("no effect"));
    let settle = ("FTPULSE__ROUTES__MAIN__SETTLE", "1s");
    let suffix = ("FTPULSE__ROUTES__MAIN__READY_SUFFIX", ".ready");
    assert!(warned(&[settle, suffix]).contains("routes.main.settle (from "));
    assert!(!warned(&[settle]).contains("no effect") && !warned(&[suffix]).contains("no effect"));
}

/// `config/ftpulse.toml` as the table has it.
fn document() -> String {
    let mut text = String::from(
        "# Every setting of ftpulse, each at its default. Remove the # before a line to change it.\n\
         # The same by variable: FTPULSE__SECTION__KEY, such as FTPULSE__HEARTBEAT__INTERVAL=2s or\n\
         # FTPULSE__ROUTES__MAIN__SPOOL=/spool; a variable wins over this file. `ftpulse check` shows\n\
         # what is in effect. This page is held equal to the program by a test.\n",
    );
    let mut section = "";
    for key in keys::KEYS {
        if key.section() != section {
            section = key.section();
            let header = section.replace("NAME", "main");
            let mark = if section.starts_with("routes") {
                "#"
            } else {
                ""
            };
            write!(text, "\n{mark}[{header}]\n").unwrap();
            if !mark.is_empty() {
                text.push_str("# One such section for each route; main is its name: [a-z0-9_]+, no double _.\n");
            }
        }
        write!(
            text,
            "\n# {}\n# Allowed: {}.",
            key.meaning,
            config::allowed(key)
        )
        .unwrap();
        text.push_str(if key.required { " Required.\n" } else { "\n" });
        let value = key.default.unwrap_or(key.example);
        let value = match key.kind {
            keys::Kind::Whole(..) | keys::Kind::Share | keys::Kind::Bool => value.into(),
            keys::Kind::Patterns if value.is_empty() => "[]".into(),
            keys::Kind::Patterns => format!("[{value:?}]"),
            _ => format!("{:?}", value.replace("<spool>", "/spool")),
        };
        let mark = if key.default.is_some() || key.required {
            "#"
        } else {
            "# Example: "
        };
        writeln!(text, "{mark}{} = {value}", key.leaf()).unwrap();
    }
    text
}

#[test]
fn documented_settings_are_those_of_the_code_with_defaults_and_bounds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ftpulse.toml");
    if std::env::var_os("UPDATE_DOCUMENT").is_some() {
        fs::write(&path, document()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == document(),
        "run UPDATE_DOCUMENT=1 cargo test --test config documented"
    );
}

#[test]
fn documented_settings_load_as_they_are_and_all_uncommented() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.toml");
    fs::write(&file, document()).unwrap();
    let secure = SERVER.1.replace("ftp://", "ftpes://");
    let as_it_is = load(Some(&file), &[SPOOL, (SERVER.0, &secure), PASSWORD]);
    let uncommented: Vec<String> = document()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest.into(),
            _ => line.into(),
        })
        .collect();
    fs::write(&file, uncommented.join("\n") + "\npassword = \"x\"\n").unwrap();
    let all = load(Some(&file), &[]);
    let values = |loaded: &config::Loaded| {
        let pairs = loaded
            .settings
            .iter()
            .map(|s| (s.key.clone(), s.value.clone()));
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(values(&as_it_is), values(&all));
    let written = all
        .settings
        .iter()
        .filter(|setting| setting.origin.contains("all.toml"))
        .count();
    assert_eq!(
        written,
        all.settings.len(),
        "every setting is in the document"
    );
}
