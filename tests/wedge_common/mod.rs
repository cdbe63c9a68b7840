//! What the tests of wedges share: peers that stop reading, incidents as the API tells them, and
//! what the kernel says about the service's threads, descriptors, memory and connections.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ftpulse::lab::{Fault, Kind};
use serde_json::Value;

use crate::support::http::Metrics;
use crate::support::service::Ftpulse;
use crate::support::{PATIENCE, wait_for};

/// Bytes that a wedged peer reads before it stops.
pub const READ: u64 = 16 * 1024;
/// Larger than what fits between the two ends, so that the wedge lies in the transfer.
pub const SIZE: usize = 512 * 1024;
/// N of the default policy.
pub const MISSES: u32 = 3;

/// The peer stops reading in the middle of the first attempt of that file.
pub fn wedge(name: &str) -> Fault {
    Fault::new(Kind::StopReading { after: READ }).matching(name, 1)
}

/// All incidents so far, oldest first.
pub fn incidents(service: &Ftpulse) -> Vec<Value> {
    let mut all = service.json("/api/incidents").as_array().unwrap().clone();
    all.sort_by_key(|incident| incident["id"].as_u64());
    all
}

/// Waits for an incident that satisfies a condition.
pub fn wait_incident(service: &Ftpulse, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, PATIENCE, || {
        incidents(service).into_iter().find(&holds)
    })
}

/// Incidents in the order of a log line's messages, as (message, incident, reason).
pub fn stays(service: &Ftpulse) -> Vec<(String, u64, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = service.lines().into_iter();
    lines
        .filter(|l| l["msg"] == "sockets quarantined" || l["msg"] == "sockets released")
        .map(|l| {
            (
                text(&l, "msg"),
                l["incident"].as_u64().unwrap(),
                text(&l, "reason"),
            )
        })
        .collect()
}

/// The number of releases for a reason.
pub fn releases(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("ftpulse_quarantine_releases_total", &[("reason", reason)])
}

/// A connection of the service, as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// TCP state number; 1 is ESTABLISHED.
    pub state: u8,
    /// Whether the process holds a descriptor of it.
    pub held: bool,
}

/// The connection that an incident's socket names; `None`: the kernel knows none.
pub fn connection(pid: u32, socket: &Value) -> Option<Connection> {
    let end = |key: &str| -> SocketAddr { socket[key].as_str().unwrap().parse().unwrap() };
    let (local, peer) = (end("local"), end("peer"));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let same = address(fields[1]) == local && address(fields[2]) == peer;
        same.then(|| Connection {
            state: u8::from_str_radix(fields[3], 16).unwrap(),
            held: descriptors(pid).contains(&PathBuf::from(format!("socket:[{}]", fields[9]))),
        })
    })
}

/// Both connections of an incident are open, untouched, and the service's.
pub fn is_held(pid: u32, incident: &Value) -> bool {
    let held = Some(Connection {
        state: 1,
        held: true,
    });
    connection(pid, &incident["control"]) == held && connection(pid, &incident["data"]) == held
}

/// Neither connection of an incident is the service's any more.
pub fn is_gone(pid: u32, incident: &Value) -> bool {
    let gone = |socket| connection(pid, socket).is_none_or(|found| !found.held);
    gone(&incident["control"]) && gone(&incident["data"])
}

/// The connections of a process that hold bytes not yet acknowledged, and how many.
pub fn send_queues(pid: u32) -> BTreeMap<PathBuf, u64> {
    let own = descriptors(pid);
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (queued, _) = fields[4].split_once(':').unwrap();
        let queued = u64::from_str_radix(queued, 16).unwrap();
        (PathBuf::from(format!("socket:[{}]", fields[9])), queued)
    });
    rows.filter(|(socket, queued)| *queued > 0 && own.contains(socket))
        .collect()
}

/// `0100007F:1F90`: the address as the machine holds it, the port as people read it.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let ip = u32::from_str_radix(ip, 16).unwrap();
    let ip = Ipv4Addr::from(ip.to_ne_bytes());
    (ip, u16::from_str_radix(port, 16).unwrap()).into()
}

/// What the descriptors of a process are.
pub fn descriptors(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries
        .filter_map(|e| fs::read_link(e.path()).ok())
        .collect()
}

/// A thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its nice value.
    pub nice: i32,
}

impl Thread {
    /// Whether it is an uploader's worker.
    pub fn works(&self) -> bool {
        self.name.starts_with("up-")
    }
}

/// The threads of a process.
pub fn threads(pid: u32) -> Vec<Thread> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let read = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(')')?;
        let (id, name) = head.split_once(" (")?;
        Some(Thread {
            id: id.parse().ok()?,
            name: name.to_owned(),
            nice: fields.split_whitespace().nth(16)?.parse().ok()?,
        })
    };
    entries.filter_map(read).collect()
}

/// Resident memory of a process, KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
