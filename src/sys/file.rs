//! Files as the kernel sees them: opening strictly beneath a folder, renaming without replacing,
//! asking who writes, locking. Nothing here follows a symlink below its root, blocks on a FIFO,
//! or replaces what stands under a name. Policy (what is taken, what is done) is elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Once;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::fs::{ResolveFlags, Stat};
use rustix::io::Errno;

/// What every way down from a root must hold: no `..` above it, no symlink on the way.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens a folder by its configured path, for reading. The path itself may be or hold symlinks:
/// it comes from the administrator, not from the folder's writers.
///
/// # Errors
/// What `open` says: missing, not a folder, not readable.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Like [`open_root`], but needs only the right to pass through the folder, not to list it.
///
/// # Errors
/// What `open` says: missing, not a folder, no way in.
pub fn open_root_for_passing(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens a file beneath `root` for reading, without waiting for anything (a FIFO without a
/// writer opens at once) and without following any symlink. The caller looks at its type.
///
/// # Errors
/// `ELOOP` where a symlink stands in the way, `EINVAL` for a path that is no plain relative one.
pub fn open_file_beneath(root: impl AsFd, rel: &str) -> io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    open_beneath(root, rel, flags)
}

/// Opens a folder beneath `root` for reading its entries; the empty path is `root` itself.
///
/// # Errors
/// As [`open_file_beneath`]; `ENOTDIR` where something else stands there.
pub fn open_dir_beneath(root: impl AsFd, rel: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if rel.is_empty() {
        return Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?);
    }
    open_beneath(root, rel, flags)
}

/// Opens a folder beneath `root` only as a place to name things in (needs no read permission);
/// the empty path is `root` itself.
///
/// # Errors
/// As [`open_dir_beneath`].
pub fn pass_dir_beneath(root: impl AsFd, rel: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if rel.is_empty() {
        return Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?);
    }
    open_beneath(root, rel, flags)
}

/// The facts of what stands at `rel` beneath `root`, a last symlink itself included.
///
/// # Errors
/// As [`open_file_beneath`].
pub fn stat_beneath(root: impl AsFd, rel: &str) -> io::Result<Stat> {
    let fd = open_beneath(root, rel, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
    Ok(rustix::fs::fstat(fd)?)
}

/// Makes the folders of `rel` beneath `root` where they are missing and opens the last one as
/// a place to name things in. The empty path is `root` itself.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` where something other than a folder stands in the way.
pub fn make_dirs_beneath(root: impl AsFd, rel: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    if rel.is_empty() {
        return Ok(dir);
    }
    check_relative(rel)?;
    for part in rel.split('/') {
        match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        dir = rustix::fs::openat(&dir, part, flags, Mode::empty())?;
    }
    Ok(dir)
}

fn open_beneath(root: impl AsFd, rel: &str, flags: OFlags) -> io::Result<OwnedFd> {
    check_relative(rel)?;
    match rustix::fs::openat2(root.as_fd(), rel, flags, Mode::empty(), BENEATH) {
        // Some sandboxes and kernels before 5.6 lack the call.
        Err(Errno::NOSYS) => walk_beneath(root, rel, flags),
        Err(error) => Err(error.into()),
        Ok(fd) => Ok(fd),
    }
}

/// `openat2` by hand: each part is opened below the one before, refusing symlinks. As `..` is
/// refused too, no step can lead above the root.
fn walk_beneath(root: impl AsFd, rel: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (folders, name) = rel.rsplit_once('/').unwrap_or(("", rel));
    let mut dir = rustix::fs::openat(root, ".", step, Mode::empty())?;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        dir = rustix::fs::openat(&dir, part, step, Mode::empty())?;
    }
    Ok(rustix::fs::openat(
        &dir,
        name,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

fn check_relative(rel: &str) -> io::Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if rel.split('/').all(plain) {
        Ok(())
    } else {
        Err(Errno::INVAL.into())
    }
}

/// Whether these facts are those of a regular file.
pub fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Renames without ever replacing what stands under the new name (`EEXIST` then).
///
/// # Errors
/// `EEXIST`, `ENOENT`, `EXDEV` and the rest as `renameat2` has them; `EINVAL` or the error of
/// `link` on a file system that offers neither way.
pub fn rename_noreplace(
    old_dir: impl AsFd,
    old: &str,
    new_dir: impl AsFd,
    new: &str,
) -> io::Result<()> {
    let (old_dir, new_dir) = (old_dir.as_fd(), new_dir.as_fd());
    match rustix::fs::renameat_with(old_dir, old, new_dir, new, RenameFlags::NOREPLACE) {
        // File systems without the flag (NFS, some FUSE): a hard link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(old_dir, old, new_dir, new, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(old_dir, old, AtFlags::empty())?)
        }
        other => Ok(other?),
    }
}

/// What is known about writers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody has it open for writing, on any machine's authority but this kernel's.
    None,
    /// Somebody has it open for writing.
    Some,
    /// The kernel would not say: not our file and no CAP_LEASE, or the file system has no leases.
    Unknown,
}

/// Asks whether somebody has this regular file open for writing, by taking a read lease and
/// giving it back. Who opens the file for writing in between waits those few microseconds.
/// The kernel tells the holder of a lease about such an opener by SIGIO, which would end the
/// process: it is ignored from the first call on (see [`ignore_sigio`]).
pub fn writers(file: &File) -> Writers {
    ignore_sigio();
    match set_lease(file, libc::F_RDLCK) {
        Ok(()) => {
            // Closing the descriptor would give it back too; an error here changes nothing.
            let _ = set_lease(file, libc::F_UNLCK);
            Writers::None
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

#[allow(unsafe_code)]
fn set_lease(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call (borrowed from `file`), and F_SETLEASE
    // takes an int, no pointer.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if answer == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the process ignore SIGIO, once; its default would end the process when a lease is
/// broken. Nothing in this service uses SIGIO.
#[allow(unsafe_code)]
pub fn ignore_sigio() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    });
}

/// Takes a shared lock (`flock`) without waiting: false if somebody holds an exclusive one.
/// It is given up when the last duplicate of the descriptor closes.
///
/// # Errors
/// What `flock` says, other than that the lock is taken.
pub fn lock_shared(file: impl AsFd) -> io::Result<bool> {
    lock(file, FlockOperation::NonBlockingLockShared)
}

/// Takes an exclusive lock (`flock`) without waiting: false if somebody holds any. Works on a
/// folder's descriptor, a read-only one too.
///
/// # Errors
/// What `flock` says, other than that the lock is taken.
pub fn lock_exclusive(file: impl AsFd) -> io::Result<bool> {
    lock(file, FlockOperation::NonBlockingLockExclusive)
}

fn lock(file: impl AsFd, how: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, how) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::symlink;

    fn refused(result: io::Result<OwnedFd>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn neither_way_down_follows_symlinks_or_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(dir.path().join("root/sub/plain"), "p").unwrap();
        symlink("../secret", dir.path().join("root/link")).unwrap();
        symlink("sub", dir.path().join("root/linked_dir")).unwrap();
        let root = open_root(&dir.path().join("root")).unwrap();
        type Open = fn(&OwnedFd, &str, OFlags) -> io::Result<OwnedFd>;
        let ways: [Open; 2] = [
            |r, p, f| open_beneath(r, p, f),
            |r, p, f| walk_beneath(r, p, f),
        ];
        for way in ways {
            assert!(way(&root, "sub/plain", OFlags::RDONLY).is_ok());
            assert_eq!(
                refused(way(&root, "link", OFlags::RDONLY)),
                Some(libc::ELOOP)
            );
            assert!(refused(way(&root, "linked_dir/plain", OFlags::RDONLY)).is_some());
            assert_eq!(
                refused(way(&root, "none", OFlags::RDONLY)),
                Some(libc::ENOENT)
            );
        }
        for bad in [
            "../secret",
            "/etc/passwd",
            "",
            "sub/../../secret",
            "sub//plain",
            "./link",
        ] {
            assert_eq!(
                refused(open_file_beneath(&root, bad)),
                Some(libc::EINVAL),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        std::fs::write(dir.path().join("b"), "b").unwrap();
        let error = rename_noreplace(&root, "a", &root, "b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        rename_noreplace(&root, "a", &root, "c").unwrap();
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"b");
        assert_eq!(std::fs::read(dir.path().join("c")).unwrap(), b"a");
    }

    #[test]
    fn a_writer_is_seen_until_it_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        assert_eq!(writers(&File::open(&path).unwrap()), Writers::Some);
        drop(writer);
        assert_eq!(writers(&File::open(&path).unwrap()), Writers::None);
    }

    #[test]
    fn an_exclusive_lock_keeps_others_out_and_a_shared_one_lets_readers_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "").unwrap();
        let open = || File::open(&path).unwrap();
        let (first, second) = (open(), open());
        assert!(lock_shared(&first).unwrap() && lock_shared(&second).unwrap());
        assert!(!lock_exclusive(open()).unwrap());
        drop((first, second));
        let owner = open();
        assert!(lock_exclusive(&owner).unwrap());
        assert!(!lock_shared(open()).unwrap());
    }
}
