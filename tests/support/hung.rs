//! A disk that hangs: a FUSE file system, mounted without any library, whose files can be looked
//! at and opened but not read until it is mended. A read of one cannot be ended by any signal but
//! KILL, like that of a dead NFS server. Their content is all zeroes.

#![allow(dead_code)] // each test file uses its own part

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

/// Size of each file.
pub const SIZE: u64 = 1 << 20;

/// The mounted file system; unmounted on drop, which ends all reads.
pub struct HungDisk {
    at: PathBuf,
    /// None while it is unmounted.
    device: Option<File>,
    reads: Arc<Mutex<Reads>>,
    /// What answers the kernel, until the other end is closed.
    server: Option<(JoinHandle<()>, UnixStream)>,
}

/// The reads that were asked for.
#[derive(Default)]
struct Reads {
    count: usize,
    mended: bool,
    /// Number and size of those that hang.
    waiting: Vec<(u64, u32)>,
}

impl HungDisk {
    /// Mounts it at an empty folder, with these files. None where this machine does not permit
    /// it (no /dev/fuse, no right to mount).
    pub fn mount(at: &Path, names: &[&'static str]) -> Option<Self> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .ok()?;
        // The options name the device by its number in mount's own table: its standard input.
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions";
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", options, "hung"])
            .arg(at)
            .stdin(device.try_clone().ok()?)
            .output()
            .ok()?;
        if !mounted.status.success() {
            return None;
        }
        let reads = Arc::new(Mutex::new(Reads::default()));
        let counted = Arc::clone(&reads);
        let names = names.to_vec();
        let served = device.try_clone().ok()?;
        let (stop, stopped) = UnixStream::pair().ok()?;
        let server = std::thread::spawn(move || serve(served, &stopped, &names, &counted));
        Some(Self {
            at: at.to_owned(),
            device: Some(device),
            reads,
            server: Some((server, stop)),
        })
    }

    /// Reads that were asked for.
    pub fn reads(&self) -> usize {
        self.reads.lock().unwrap().count
    }

    /// It works again: what hangs is answered, and whatever is read from now on.
    pub fn mend(&self) {
        let mut reads = self.reads.lock().unwrap();
        reads.mended = true;
        for (unique, size) in reads.waiting.drain(..) {
            let device = self.device.as_ref().unwrap();
            reply(device, unique, Ok(vec![0; size as usize]));
        }
    }
}

impl Drop for HungDisk {
    fn drop(&mut self) {
        if let Some((server, stop)) = self.server.take() {
            drop(stop);
            let _ = server.join();
        }
        // Closing the device for good fails every request, so that nothing can hold the unmount.
        // The unmount alone ends none of them: other mount namespaces may have a copy.
        drop(self.device.take());
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// `struct fuse_attr` of the root (1) or a file (2 and up).
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size): (u32, u64) = if node == 1 {
        (0o40755, 0)
    } else {
        (0o100_644, SIZE)
    };
    let mut out = Vec::new();
    for word in [
        node,
        size,
        size / 512,
        1_600_000_000,
        1_600_000_000,
        1_600_000_000,
    ] {
        out.extend(word.to_ne_bytes());
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0_u32] {
        out.extend(word.to_ne_bytes());
    }
    out
}

fn entry(names: &[&str], name: &[u8]) -> Result<Vec<u8>, i32> {
    let at = names
        .iter()
        .position(|n| n.as_bytes() == name)
        .ok_or(libc::ENOENT)?;
    let node = at as u64 + 2;
    let mut out: Vec<u8> = [node, 0, 3600, 3600, 0]
        .iter()
        .flat_map(|w| w.to_ne_bytes())
        .collect();
    out.extend(attributes(node));
    Ok(out)
}

fn listing(names: &[&str], from: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, name) in names.iter().enumerate().skip(from as usize) {
        out.extend((at as u64 + 2).to_ne_bytes());
        out.extend((at as u64 + 1).to_ne_bytes());
        out.extend((name.len() as u32).to_ne_bytes());
        out.extend(8_u32.to_ne_bytes());
        out.extend(name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

/// Answers the kernel until it is stopped.
fn serve(mut device: File, stopped: &UnixStream, names: &[&str], reads: &Mutex<Reads>) {
    const HEADER: usize = 40;
    let mut request = vec![0; 1 << 20];
    loop {
        let mut fds = [
            PollFd::new(&device, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(_) if fds[1].revents().is_empty() => {}
            _ => return,
        }
        let Ok(length) = device.read(&mut request) else {
            return;
        };
        let (code, unique, node) = (
            u32_at(&request, 4),
            u64_at(&request, 8),
            u64_at(&request, 16),
        );
        let body = &request[HEADER..length];
        let answer: Result<Vec<u8>, i32> = match code {
            // INIT: version 7.31, small requests; asynchronous reads, so that KILL ends the wait.
            26 => Ok([
                7,
                31,
                u32_at(body, 8),
                1,
                0,
                1 << 16,
                1,
                1,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0_u32,
            ]
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect()),
            1 => entry(names, body.strip_suffix(b"\0").unwrap_or(body)),
            3 => {
                let mut out: Vec<u8> = [3600_u64, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
                out.extend(attributes(node));
                Ok(out)
            }
            // OPEN, OPENDIR: no handle; the cache is kept, or a second open would wait beyond KILL.
            14 | 27 => Ok([0, 0, 2, 0_u32]
                .iter()
                .flat_map(|w| w.to_ne_bytes())
                .collect()),
            28 => Ok(listing(names, u64_at(body, 8))),
            15 => {
                let (size, mut reads) = (u32_at(body, 16), reads.lock().unwrap());
                reads.count += 1;
                if !reads.mended {
                    reads.waiting.push((unique, size));
                    continue;
                }
                Ok(vec![0; size as usize])
            }
            // FORGET, INTERRUPT, BATCH_FORGET want no answer; the interrupted read stays.
            2 | 36 | 42 => continue,
            // RELEASE, FLUSH, RELEASEDIR, ACCESS.
            18 | 25 | 29 | 34 => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        reply(&device, unique, answer);
    }
}

fn reply(mut device: &File, unique: u64, answer: Result<Vec<u8>, i32>) {
    let (error, payload) = answer.map_or_else(|e| (-e, Vec::new()), |payload| (0, payload));
    let mut out = Vec::with_capacity(16 + payload.len());
    out.extend((16 + payload.len() as u32).to_ne_bytes());
    out.extend(error.to_ne_bytes());
    out.extend(unique.to_ne_bytes());
    out.extend(payload);
    // The asker may be gone.
    let _ = device.write(&out);
}
