//! How each real FTP server is configured and started: one function a server, each giving the
//! command line for an address, a login and a folder. Nothing here starts anything.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use super::certificates::{Authority, Secured, Shown};
use super::process::tied;

/// The login of every server but a vsftpd that runs without root.
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "pass word";
/// The same, as crypt(3) has it.
const PASSWORD_CRYPT: &str = "$5$ftpulse$Y8MfsVx7W.05ujtWPbB9ucZqpt7.yqQx0BG8A870iy1";
/// nobody and nogroup.
pub const UNPRIVILEGED: u32 = 65534;
/// Passive ports: below the kernel's ephemeral ports, on an address that nobody else uses.
const PASSIVE: (u16, u16) = (20_000, 20_999);

/// What a recipe is made for.
pub struct Place<'a> {
    /// Folder for configuration and logs (`*.log` is shown when a test fails).
    pub dir: &'a Path,
    /// The login folder.
    pub root: &'a Path,
    /// Where to listen.
    pub addr: SocketAddr,
    /// Bounds and further settings.
    pub opts: &'a Opts,
}

/// Bounds and further settings of a server.
#[derive(Debug, Clone, Default)]
pub struct Opts {
    /// Lines of the server's own configuration; later lines win. For pure-ftpd: arguments.
    /// For pyftpdlib: Python, with `authorizer`, `handler` and `server` in reach.
    pub extra: Vec<String>,
    /// Sessions at most.
    pub max_clients: Option<u32>,
    /// Sessions at most from one address.
    pub max_per_ip: Option<u32>,
    /// pyftpdlib only: a process a session (then `max_per_ip` does not count).
    pub process_per_session: bool,
    /// It speaks TLS, on the control and the data connections, and nothing else.
    pub tls: Option<Secured>,
    /// It listens on `::1`.
    pub ipv6: bool,
}

impl Opts {
    /// Adds a line of the server's own configuration.
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.extra.push(line.into());
        self
    }
    /// Bounds the sessions.
    pub fn clients(mut self, most: u32) -> Self {
        self.max_clients = Some(most);
        self
    }
    /// Bounds the sessions from one address.
    pub fn per_ip(mut self, most: u32) -> Self {
        self.max_per_ip = Some(most);
        self
    }
    /// TLS after AUTH, with a good certificate of that authority.
    pub fn tls(mut self, authority: &Arc<Authority>) -> Self {
        self.tls = Some(Secured {
            authority: Arc::clone(authority),
            shown: Shown::Good,
            implicit: false,
            only: None,
            wants_client: false,
        });
        self
    }
    /// Changes how TLS is spoken.
    pub fn tls_with(mut self, change: impl FnOnce(&mut Secured)) -> Self {
        change(self.tls.as_mut().expect("after `tls`"));
        self
    }
    /// Listens on `::1`.
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }
    /// pyftpdlib: a process a session.
    pub fn process_per_session(mut self) -> Self {
        self.process_per_session = true;
        self
    }
}

/// Whether this process may change users and roots.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where `tests/run servers` puts the servers.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("FTPULSE_TEST_SERVERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-servers"),
        PathBuf::from,
    );
    assert!(
        cache.join("stamp").exists(),
        "the FTP servers are not in {}: run `tests/run servers` first",
        cache.display()
    );
    cache
}

/// A program of the unpacked packages.
fn unpacked(program: &str) -> PathBuf {
    cache().join("root/usr").join(program)
}

/// Where the unpacked packages keep libraries, as LD_LIBRARY_PATH wants it.
fn libraries() -> String {
    let mut paths = Vec::new();
    for parent in ["root/usr/lib", "root/lib"] {
        for entry in fs::read_dir(cache().join(parent))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().contains("-linux-gnu") {
                paths.push(entry.path().display().to_string());
            }
        }
    }
    paths.join(":")
}

/// What a server needs to speak TLS: its certificate, its key, whom it trusts, and a configuration
/// of OpenSSL for the bounds that the server itself has no setting for.
struct Files {
    certificate: String,
    key: String,
    /// Both in one.
    both: String,
    authority: String,
    openssl: PathBuf,
}

impl Files {
    fn of(place: &Place<'_>, secured: &Secured) -> Self {
        let pair = secured.authority.server(secured.shown, place.addr.ip());
        let (certificate, key) = pair.write(place.dir, "server");
        let both = place.dir.join("both.pem");
        fs::write(&both, [pair.key, pair.certificate].concat()).unwrap();
        let authority = secured.authority.write(place.dir);
        let openssl = place.dir.join("openssl.cnf");
        let bounds = secured.only.map_or_else(String::new, |version| {
            format!("MinProtocol = {version}\nMaxProtocol = {version}\n")
        });
        let head = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = bounds\n";
        fs::write(&openssl, format!("{head}[bounds]\n{bounds}")).unwrap();
        for secret in [&key, &both] {
            fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
        }
        if is_root() && vsftpd_is_anonymous() {
            let id = Some(UNPRIVILEGED);
            std::os::unix::fs::chown(&key, id, id).unwrap();
        }
        let text = |path: &Path| path.display().to_string();
        Self {
            certificate: text(&certificate),
            key: text(&key),
            both: text(&both),
            authority: text(&authority),
            openssl,
        }
    }
}

fn write(path: &Path, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// Whether vsftpd takes no real login here: it needs PAM and a user of the machine, which only
/// root can give it, and only where mount namespaces are allowed.
pub fn vsftpd_is_anonymous() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let tried = Command::new("unshare").args(["--mount", "true"]).output();
        !(is_root() && tried.is_ok_and(|output| output.status.success()))
    })
}

/// vsftpd. As root with a real login: its PAM service and its user exist in a mount namespace
/// of its own, so the machine's /etc stays as it is. Otherwise as nobody:
/// anonymous, not chrooted.
pub fn vsftpd(place: &Place<'_>) -> Command {
    let dir = place.dir;
    let yes = |keys: &[&str]| {
        keys.iter()
            .map(|key| format!("{key}=YES"))
            .collect::<Vec<_>>()
    };
    let (listen, address) = match place.opts.ipv6 {
        true => ("listen_ipv6", "listen_address6"),
        false => ("listen", "listen_address"),
    };
    let mut conf = yes(&[listen, "write_enable", "xferlog_enable", "log_ftp_protocol"]);
    conf.extend(yes(&["allow_writeable_chroot"]));
    conf.push("background=NO\nxferlog_std_format=NO\nconnect_from_port_20=NO".into());
    conf.push(format!(
        "{address}={}\nlisten_port={}",
        place.addr.ip(),
        place.addr.port()
    ));
    conf.push(format!(
        "pasv_min_port={}\npasv_max_port={}",
        PASSIVE.0, PASSIVE.1
    ));
    conf.push(format!(
        "vsftpd_log_file={}",
        dir.join("vsftpd.log").display()
    ));
    conf.push(format!(
        "secure_chroot_dir={}\nnopriv_user=nobody",
        dir.join("empty").display()
    ));
    conf.push("max_login_fails=100\ndelay_failed_login=0".into());
    conf.push(format!("max_per_ip={}", place.opts.max_per_ip.unwrap_or(0)));
    conf.push(format!(
        "max_clients={}",
        place.opts.max_clients.unwrap_or(0)
    ));
    if place.opts.ipv6 {
        conf.push("listen=NO".into());
    }
    let mut openssl = None;
    if let Some(secured) = &place.opts.tls {
        let files = Files::of(place, secured);
        conf.extend(yes(&["ssl_enable", "require_ssl_reuse", "allow_anon_ssl"]));
        conf.extend(yes(&["force_local_logins_ssl", "force_local_data_ssl"]));
        conf.extend(yes(&["force_anon_logins_ssl", "force_anon_data_ssl"]));
        conf.push("ssl_ciphers=HIGH".into());
        conf.push(format!("rsa_cert_file={}", files.certificate));
        conf.push(format!("rsa_private_key_file={}", files.key));
        if secured.implicit {
            conf.extend(yes(&["implicit_ssl"]));
        }
        if secured.wants_client {
            conf.extend(yes(&["require_cert", "validate_cert"]));
            conf.push(format!("ca_certs_file={}", files.authority));
        }
        openssl = Some(files.openssl);
    }
    fs::create_dir_all(dir.join("empty")).unwrap();
    fs::create_dir_all(dir.join("pam.d")).unwrap();
    let mut command;
    if !vsftpd_is_anonymous() {
        conf.push("anonymous_enable=NO\nlocal_umask=022\nsession_support=NO".into());
        conf.extend(yes(&["local_enable", "chroot_local_user"]));
        conf.push("pam_service_name=vsftpd".into());
        let module = libraries()
            .split(':')
            .map(|folder| Path::new(folder).join("security/pam_pwdfile.so"))
            .find(|module| module.exists())
            .expect("`tests/run servers` unpacks libpam-pwdfile");
        let users = dir.join("users");
        write(&users, &[format!("{USER}:{PASSWORD_CRYPT}")]);
        write(
            &dir.join("pam.d/vsftpd"),
            &[
                format!(
                    "auth required {} pwdfile {} nodelay",
                    module.display(),
                    users.display()
                ),
                "account required pam_permit.so".into(),
            ],
        );
        let machine_users = fs::read_to_string("/etc/passwd").unwrap();
        write(
            &dir.join("passwd"),
            &[machine_users.trim_end().into(), unix_user("x", place)],
        );
        command = tied("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(
            r#"mount --bind "$0/pam.d" /etc/pam.d &&
               mount --bind "$0/passwd" /etc/passwd && exec "$@""#,
        );
        command.arg(dir).arg(unpacked("sbin/vsftpd"));
    } else {
        let anonymous = ["anon_upload_enable", "anon_mkdir_write_enable"];
        conf.extend(yes(&["anonymous_enable", "anon_other_write_enable"]));
        conf.extend(yes(&anonymous));
        conf.push("anon_world_readable_only=NO\nanon_umask=022".into());
        conf.push(format!("anon_root={}", place.root.display()));
        conf.push("run_as_launching_user=YES\nftp_username=nobody".into());
        if is_root() {
            command = tied("setpriv");
            let id = UNPRIVILEGED.to_string();
            // The change of user clears the death signal: it is set again.
            command.args(["--pdeathsig", "KILL", "--clear-groups"]);
            command
                .args(["--reuid", &id, "--regid", &id, "--"])
                .arg(unpacked("sbin/vsftpd"));
        } else {
            command = tied(unpacked("sbin/vsftpd"));
        }
    }
    conf.extend(place.opts.extra.iter().cloned());
    write(&dir.join("vsftpd.conf"), &conf);
    if is_root() && vsftpd_is_anonymous() {
        // It reads only its own user's configuration, and makes its log beside it.
        for path in [dir, &dir.join("vsftpd.conf")] {
            std::os::unix::fs::chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
    }
    command
        .arg(dir.join("vsftpd.conf"))
        .env("LD_LIBRARY_PATH", libraries());
    command.envs(openssl.map(|path| ("OPENSSL_CONF", path)));
    command
}

fn unix_user(password: &str, place: &Place<'_>) -> String {
    let (uid, gid) = match is_root() {
        true => (UNPRIVILEGED, UNPRIVILEGED),
        false => (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
    };
    format!(
        "{USER}:{password}:{uid}:{gid}::{}:/bin/sh",
        place.root.display()
    )
}

/// proftpd. Without root it does not chroot: an absolute path is then the machine's.
pub fn proftpd(place: &Place<'_>) -> Command {
    let dir = place.dir;
    let users = dir.join("users");
    write(&users, &[unix_user(PASSWORD_CRYPT, place)]);
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap(); // it insists
    let file = |name: &str| dir.join(name).display().to_string();
    let mut conf: Vec<String> = vec![
        "ServerType standalone\nServerName test\nSocketBindTight on".into(),
        format!("UseIPv6 {}", if place.opts.ipv6 { "on" } else { "off" }),
        format!(
            "DefaultAddress {}\nPort {}",
            place.addr.ip(),
            place.addr.port()
        ),
        format!("PassivePorts {} {}", PASSIVE.0, PASSIVE.1),
        format!(
            "AuthOrder mod_auth_file.c\nAuthPAM off\nAuthUserFile {}",
            users.display()
        ),
        "RequireValidShell off\nUseFtpUsers off\nWtmpLog off\nAllowOverwrite on".into(),
        "UseReverseDNS off\nDelayEngine off\nDelayTable none\nControlsEngine off".into(),
        "MaxLoginAttempts 100\nAllowStoreRestart on".into(),
        format!(
            "PidFile {}\nScoreboardFile {}",
            file("pid"),
            file("scoreboard")
        ),
        format!(
            "SystemLog {}\nTransferLog {}",
            file("system.log"),
            file("transfer.log")
        ),
        format!("ExtendedLog {} ALL default", file("commands.log")),
    ];
    if let Some(secured) = &place.opts.tls {
        let files = Files::of(place, secured);
        conf.push(format!(
            "ModulePath {}\nLoadModule mod_tls.c\nTLSEngine on\nTLSRequired on",
            unpacked("lib/proftpd").display()
        ));
        conf.push(format!(
            "TLSECCertificateFile {}\nTLSECCertificateKeyFile {}\nTLSLog {}",
            files.certificate,
            files.key,
            file("tls.log")
        ));
        conf.push(format!(
            "TLSProtocol {}",
            secured.only.unwrap_or("TLSv1.2 TLSv1.3")
        ));
        if secured.implicit {
            conf.push("TLSOptions UseImplicitSSL".into());
        }
        if secured.wants_client {
            conf.push(format!(
                "TLSVerifyClient on\nTLSCACertificateFile {}",
                files.authority
            ));
        }
    }
    if is_root() {
        conf.push("User nobody\nGroup nogroup\nDefaultRoot ~".into());
    } else {
        conf.push(format!(
            "User {}\nGroup {}",
            own_name("-un"),
            own_name("-gn")
        ));
    }
    conf.extend(
        place
            .opts
            .max_clients
            .map(|most| format!("MaxClients {most}")),
    );
    conf.extend(
        place
            .opts
            .max_per_ip
            .map(|most| format!("MaxClientsPerHost {most}")),
    );
    conf.extend(place.opts.extra.iter().cloned());
    write(&dir.join("proftpd.conf"), &conf);
    let mut command = tied(unpacked("sbin/proftpd"));
    command
        .args(["--nodaemon", "--quiet", "--config"])
        .arg(dir.join("proftpd.conf"));
    command.env("LD_LIBRARY_PATH", libraries());
    command
}

/// The name of this process's user (`-un`) or group (`-gn`).
fn own_name(which: &str) -> String {
    let id = Command::new("id").arg(which).output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().into()
}

/// pure-ftpd. As built by Debian it runs for root only, and only with all its capabilities
/// (not in a container with the usual few).
pub fn pure_ftpd(place: &Place<'_>) -> Command {
    assert!(
        is_root(),
        "Debian's pure-ftpd runs for root only: run this test as root"
    );
    let dir = place.dir;
    let file = |name: &str| dir.join(name).display().to_string();
    // The "/./" makes the login folder the root of the session.
    let user = unix_user(PASSWORD_CRYPT, place).replace(":/bin/sh", "/./::::::::::::");
    write(&dir.join("users"), &[user]);
    let made = Command::new(unpacked("bin/pure-pw"))
        .args(["mkdb", &file("users.pdb"), "-f", &file("users")])
        .env("LD_LIBRARY_PATH", libraries())
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "pure-pw mkdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut command = tied(unpacked("sbin/pure-ftpd"));
    command.args(["-l", &format!("puredb:{}", file("users.pdb"))]);
    command.args([
        "-A",
        "-E",
        "-H",
        "-4",
        "-z",
        "-D",
        "-u",
        "1",
        "-g",
        &file("pid"),
    ]);
    command.args(["-S", &format!("{},{}", place.addr.ip(), place.addr.port())]);
    command.args(["-p", &format!("{}:{}", PASSIVE.0, PASSIVE.1)]);
    command.args(["-O", &format!("clf:{}", file("transfer.log"))]);
    command.args(["-c", &place.opts.max_clients.unwrap_or(1000).to_string()]);
    if let Some(secured) = &place.opts.tls {
        assert!(!secured.implicit, "pure-ftpd has no implicit TLS");
        let files = Files::of(place, secured);
        // 3: nothing without TLS, on the data connections neither.
        command.args(["-Y", "3", "-2", &files.both]);
        command.env("OPENSSL_CONF", files.openssl);
    }
    if let Some(most) = place.opts.max_per_ip {
        command.args(["-C", &most.to_string()]);
    }
    command
        .args(&place.opts.extra)
        .env("LD_LIBRARY_PATH", libraries());
    command
}

fn python_tls(place: &Place<'_>, secured: &Secured) -> String {
    assert!(!secured.implicit, "pyftpdlib has no implicit TLS");
    let files = Files::of(place, secured);
    let only = secured.only.map_or_else(String::new, |version| {
        let version = version.replace("TLSv", "TLS").replace('.', "_");
        format!(
            "context.set_min_proto_version(SSL.{version}_VERSION)\n\
             context.set_max_proto_version(SSL.{version}_VERSION)\n"
        )
    });
    let client = match secured.wants_client {
        true => format!(
            "context.load_verify_locations({:?})\n\
             context.set_session_id(b\"ftpulse\")\n\
             context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)\n",
            files.authority
        ),
        false => String::new(),
    };
    format!(
        "from OpenSSL import SSL\n\
         handler.certfile = {:?}\n\
         handler.tls_control_required = handler.tls_data_required = True\n\
         context = handler.get_ssl_context()\n{only}{client}\
         handler.ssl_context = context\n",
        files.both
    )
}

/// pyftpdlib. Without `process_per_session` all sessions live in the server's own process.
pub fn pyftpdlib(place: &Place<'_>) -> Command {
    let kind = if place.opts.process_per_session {
        "MultiprocessFTPServer"
    } else {
        "FTPServer"
    };
    let (base, tls) = match &place.opts.tls {
        Some(secured) => ("TLS_FTPHandler", python_tls(place, secured)),
        None => ("FTPHandler", String::new()),
    };
    let script = format!(
        r#"
import logging, sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import {base}
from pyftpdlib.servers import FTPServer, MultiprocessFTPServer
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
authorizer = DummyAuthorizer()
authorizer.add_user({USER:?}, {PASSWORD:?}, sys.argv[1], perm="elradfmwMT")
class handler({base}):
    passive_ports = range({}, {} + 1)
    auth_failed_timeout = 0
handler.authorizer = authorizer
{tls}
server = {kind}(({:?}, {}), handler, backlog=100)
server.max_cons = {}
server.max_cons_per_ip = {}
{}
server.serve_forever()
"#,
        PASSIVE.0,
        PASSIVE.1,
        place.addr.ip().to_string(),
        place.addr.port(),
        place.opts.max_clients.unwrap_or(0),
        place.opts.max_per_ip.unwrap_or(0),
        place.opts.extra.join("\n"),
    );
    fs::write(place.dir.join("server.py"), script).unwrap();
    let mut command = tied("python3");
    command.arg(place.dir.join("server.py")).arg(place.root);
    command
        .env("PYTHONPATH", cache().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
