//! Active mode: the checked settings of a route whose server opens the data connections.

use super::fault::Wrong;
use super::server::Place;
use super::settings::Settings;
use super::value::Typed;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// How the server is told where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// The address; none: that of our end of the control connection.
    pub address: Option<IpAddr>,
    /// The ports to listen on; none: whichever the kernel gives.
    pub ports: Option<RangeInclusive<u16>>,
}

const KEYS: [&str; 2] = ["active_address", "active_ports"];

/// Reads the settings of a route.
pub(super) fn of(s: &Settings, route: &str) -> Option<Active> {
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    (s.choice(&name("mode")) == "active").then(|| Active {
        address: match s.get(&name("active_address")) {
            Some(Typed::Ip(address)) => Some(*address),
            _ => None,
        },
        ports: match s.get(&name("active_ports")) {
            Some(Typed::Ports(ports)) => Some(ports.clone()),
            _ => None,
        },
    })
}

/// Settings without the mode that they are for, too few ports, an address of the other kind.
pub(super) fn check(s: &mut Settings, route: &str) {
    let name = |leaf: &str| format!("routes.{route}.{leaf}");
    let mode = name("mode");
    let Some(Active { address, ports }) = of(s, route) else {
        for leaf in KEYS {
            if s.has(&name(leaf)) && s.sound(&[&mode, &name(leaf)]) {
                let found = format!("a setting of active mode, but {mode} is passive");
                let allowed = "active_address and active_ports together with mode = \"active\"";
                let way_out = format!("set {mode} to active, or remove {leaf}");
                s.fault(&name(leaf), Wrong::new(found, allowed, way_out));
            }
        }
        return;
    };
    let uploaders = name("uploaders");
    let count = ports.as_ref().map(RangeInclusive::len);
    let needed = s.whole(&uploaders) as usize;
    if let Some(count) = count.filter(|count| *count < needed && s.sound(&[&uploaders])) {
        let wrong = Wrong::new(
            format!("{count} ports for {needed} uploaders: each listens on one of its own"),
            format!("at least as many ports as uploaders, here {needed}"),
            format!("name more ports, or lower {uploaders}"),
        );
        s.fault(&name("active_ports"), wrong);
    }
    let host = match s.get(&name("server")) {
        Some(Typed::Server(Place { host, .. })) => host.parse::<IpAddr>().ok(),
        _ => None,
    };
    if let (Some(address), Some(host)) = (address, host)
        && address.is_ipv4() != host.is_ipv4()
    {
        let wrong = Wrong::new(
            format!("{address}, but the server's address is {host}"),
            "an address of the same kind as the server's, IPv4 or IPv6",
            "name our address of that kind, or remove it: that of the connection is told then",
        );
        s.fault(&name("active_address"), wrong);
    }
}
