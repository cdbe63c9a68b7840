//! The files below the root. Every path is opened relative to the root's descriptor with
//! RESOLVE_BENEATH, so that neither `..` nor a symlink leads out; only regular files are read or
//! written, and nothing here can block on a FIFO.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

use super::paths::VPath;

/// The folder that the server serves.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// What a listing shows of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub folder: bool,
    pub size: u64,
    /// Modification, Unix seconds.
    pub modified: i64,
}

impl Meta {
    fn of(stat: &Stat) -> Self {
        Self {
            folder: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
        }
    }
}

impl Root {
    /// Opens the folder, which is made if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    fn at(&self, path: &VPath, flags: OFlags) -> io::Result<OwnedFd> {
        // O_PATH opens nothing that could block, and the kernel refuses more flags beside it.
        let wait_not = if flags.contains(OFlags::PATH) {
            OFlags::empty()
        } else {
            OFlags::NONBLOCK
        };
        let flags = flags | OFlags::CLOEXEC | wait_not;
        let mode = if flags.contains(OFlags::CREATE) {
            0o644
        } else {
            0
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let name = OsStr::from_bytes(path.relative());
        loop {
            let mode = Mode::from_raw_mode(mode);
            match rustix::fs::openat2(&self.0, name, flags, mode, resolve) {
                // The kernel saw a rename on the way and asks to try again.
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    fn regular(&self, path: &VPath, flags: OFlags) -> io::Result<File> {
        let file = File::from(self.at(path, flags)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("not a regular file"))
        }
    }

    fn parent<'p>(&self, path: &'p VPath) -> io::Result<(OwnedFd, &'p OsStr)> {
        let (folder, name) = path.split().ok_or(io::ErrorKind::PermissionDenied)?;
        let folder = self.at(&folder, OFlags::DIRECTORY | OFlags::PATH)?;
        Ok((folder, OsStr::from_bytes(name)))
    }

    /// A file to be written: made if missing, cut to nothing if `truncate`.
    pub(super) fn create(&self, path: &VPath, truncate: bool) -> io::Result<File> {
        let file = self.regular(path, OFlags::WRONLY | OFlags::CREATE)?;
        if truncate {
            file.set_len(0)?;
        }
        Ok(file)
    }

    pub(super) fn read(&self, path: &VPath) -> io::Result<File> {
        self.regular(path, OFlags::RDONLY)
    }

    pub(super) fn meta(&self, path: &VPath) -> io::Result<Meta> {
        let opened = self.at(path, OFlags::PATH)?;
        Ok(Meta::of(&rustix::fs::fstat(opened)?))
    }

    pub(super) fn make_folder(&self, path: &VPath) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(rustix::fs::mkdirat(
            folder,
            name,
            Mode::from_raw_mode(0o755),
        )?)
    }

    pub(super) fn remove_folder(&self, path: &VPath) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
    }

    pub(super) fn remove(&self, path: &VPath) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
    }

    /// Sets the time of modification.
    pub(super) fn set_modified(&self, path: &VPath, unix: i64) -> io::Result<()> {
        let at = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
        let times = rustix::fs::Timestamps {
            last_access: at(0, rustix::fs::UTIME_OMIT),
            last_modification: at(unix, 0),
        };
        let file = self.regular(path, OFlags::RDONLY)?;
        Ok(rustix::fs::futimens(file, &times)?)
    }

    /// Renames, replacing what stands under the new name.
    pub(super) fn rename(&self, from: &VPath, to: &VPath) -> io::Result<()> {
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        Ok(rustix::fs::renameat(
            from_folder,
            from_name,
            to_folder,
            to_name,
        )?)
    }

    /// The entries of a folder by name, or the one file that `path` names.
    pub(super) fn list(&self, path: &VPath) -> io::Result<Vec<(Vec<u8>, Meta)>> {
        let meta = self.meta(path)?;
        if !meta.folder {
            return Ok(path
                .split()
                .map(|(_, name)| (name.to_vec(), meta))
                .into_iter()
                .collect());
        }
        let mut dir = Dir::new(self.at(path, OFlags::DIRECTORY | OFlags::RDONLY)?)?;
        let mut found = Vec::new();
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // An entry that vanished since it was read is left out.
            if let Ok(stat) = rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                found.push((name.to_bytes().to_vec(), Meta::of(&stat)));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}
