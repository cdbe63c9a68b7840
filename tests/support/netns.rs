//! Two machines in one: network namespaces joined by a cable that can be cut, a real FTP server
//! in the one, room for the service in the other. A cut path swallows every packet, both ways,
//! and tells nobody. The namespaces live as long as the processes in them: nothing is left behind,
//! not even when the test process is killed, and nothing has a name that could collide.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use ftpulse::clock::{self, Mono};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{Running, spawn, tied};
use super::recipes::{Opts, is_root};
use super::servers::Server;
use super::service::{Ftpulse, Settings};
use super::{PATIENCE, wait_for};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// What comes in is dropped, not what goes out: a sender that is told would behave otherwise.
const TABLE: &str = "add table inet path; \
    add chain inet path in { type filter hook input priority 0; policy accept; }";

/// A network namespace.
pub struct Space {
    /// Its address on the cable.
    pub ip: Ipv4Addr,
    file: File,
    holder: Running,
}

impl Space {
    fn new(ip: Ipv4Addr) -> Result<Self, String> {
        let mut command = tied("unshare");
        command.args(["--net", "sleep", "infinity"]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut holder = spawn(command).map_err(|e| format!("unshare: {e}"))?;
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", holder.pid());
        let made = wait_for("the namespace is made", PATIENCE, || {
            let there = fs::read_link(&path).is_ok_and(|theirs| theirs != own);
            match holder.ended() {
                Some(_) => Some(false),
                None => there.then_some(true),
            }
        });
        if !made {
            return Err("network namespaces are not permitted".into());
        }
        let file = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok(Self { ip, file, holder })
    }

    /// A command for `program` in this namespace; it dies with this process.
    pub fn tied(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = tied("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.pid()))
            .arg("--")
            .arg(program);
        command
    }

    /// The same program, arguments and variables in this namespace.
    pub fn moved(&self, command: &Command) -> Command {
        let mut moved = self.tied(command.get_program());
        moved.args(command.get_args());
        let set = command.get_envs().filter_map(|(k, v)| Some((k, v?)));
        moved.envs(set);
        moved
    }

    /// Runs this on a thread in this namespace.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<(), String> {
        let output = self.tied(program).args(args).output();
        let output = output.map_err(|e| format!("{program}: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{program} {}: {}", args.join(" "), said.trim())),
        }
    }

    fn nft(&self, what: &str) {
        self.tool("nft", &[what]).unwrap();
    }

    /// Its own ports of connections to `peer`.
    fn ports_to(&self, peer: Ipv4Addr) -> Vec<String> {
        let table = format!("/proc/{}/net/tcp", self.holder.pid());
        // Addresses in hex, in the byte order of this machine.
        let peer = format!("{:08X}:", u32::from_ne_bytes(peer.octets()));
        let text = fs::read_to_string(table).unwrap();
        let ends = text.lines().skip(1).map(|line| {
            let mut words = line.split_whitespace().skip(1);
            (words.next().unwrap(), words.next().unwrap())
        });
        ends.filter(|(_, remote)| remote.starts_with(&peer))
            .map(|(local, _)| {
                let port = local.rsplit(':').next().unwrap();
                u16::from_str_radix(port, 16).unwrap().to_string()
            })
            .collect()
    }
}

/// A client's and a server's machine with a path between them.
pub struct Net {
    server: Server,
    near: Space,
    far: Arc<Space>,
}

impl Net {
    /// With pyftpdlib; `None`, and a line that says so, where namespaces are not permitted.
    pub fn new() -> Option<Self> {
        Self::with(Opts::default())
    }

    /// The same with settings of the server's own.
    #[allow(clippy::print_stdout)]
    pub fn with(opts: Opts) -> Option<Self> {
        match Self::spaces() {
            Ok((near, far)) => {
                let server = Server::pyftpdlib_in(&far, opts);
                Some(Self { server, near, far })
            }
            Err(why) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    fn spaces() -> Result<(Space, Arc<Space>), String> {
        if !is_root() {
            return Err("network namespaces take root".into());
        }
        let (near, far) = (Space::new(CLIENT)?, Space::new(SERVER)?);
        let there = far.holder.pid().to_string();
        let cable = ["link", "add", "cable", "type", "veth", "peer", "name"];
        near.tool("ip", &[&cable[..], &["cable", "netns", &there]].concat())?;
        for space in [&near, &far] {
            let address = format!("{}/30", space.ip);
            space.tool("ip", &["addr", "add", &address, "dev", "cable"])?;
            space.tool("ip", &["link", "set", "cable", "up"])?;
            space.tool("ip", &["link", "set", "lo", "up"])?;
            space.tool("nft", &[TABLE])?;
        }
        Ok((near, Arc::new(far)))
    }

    /// The server at the far end.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Starts the service at the near end; its HTTP side is reached by `near`.
    pub fn run_service(&self, settings: Settings) -> Ftpulse {
        let mut service = settings.launch_as(self.near.tied(env!("CARGO_BIN_EXE_ftpulse")));
        service.wait_listening();
        service
    }

    /// Runs this at the near end: a scrape, for example.
    pub fn near<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.near.run(act)
    }

    /// From now on no packet comes through. Tells when it began.
    pub fn cut(&self) -> Mono {
        let began = clock::mono();
        for space in [&*self.far, &self.near] {
            space.nft("add rule inet path in iifname cable drop");
        }
        began
    }

    /// From now on no packet of a connection that exists comes through, as when a firewall has
    /// forgotten it; new ones work. Tells when it began.
    pub fn cut_flows(&self) -> Mono {
        let began = clock::mono();
        let ports = self.near.ports_to(SERVER).join(", ");
        assert!(!ports.is_empty(), "there is no connection");
        let drop = |end: &str| format!("add rule inet path in tcp {end} {{ {ports} }} drop");
        self.far.nft(&drop("sport"));
        self.near.nft(&drop("dport"));
        began
    }

    /// Every packet comes through again.
    pub fn mend(&self) {
        for space in [&*self.far, &self.near] {
            space.nft("flush chain inet path in");
        }
    }
}
