//! Moving a file out of the spool into a folder of ours (archive, dead letters), keeping its path
//! below the spool. Never replaces a file: a taken name gets a number. Across devices: copied,
//! synced, and only then is the source removed. Follows no symlink that a producer could plant.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};

use super::Facts;
use super::source::{facts_of, open_in};
use crate::sys::file;

/// Numbers tried one after the other before random ones: a name that is archived a thousand
/// times a day should not cost a thousand looks each.
const NUMBERS_IN_ORDER: u32 = 99;
/// Random numbers tried after that; two of 2^32 meet so seldom that failing means another cause.
const NUMBERS_AT_RANDOM: u32 = 20;

/// A file name's length in bytes at most (every Linux file system).
const NAME_MAX: usize = 255;

/// The prefix of every private name of ours.
pub(super) const PRIVATE_PREFIX: &str = ".ftpulse-";

/// A fresh private name that ends so.
pub(super) fn private_name(end: &str) -> io::Result<String> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    Ok(format!("{PRIVATE_PREFIX}{random:016x}{end}"))
}

/// A folder of ours, opened as a place to name things in, made where missing.
pub(super) struct Store {
    dir: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// Opens the folder. Where it lies below the spool, whose writers are not trusted, no
    /// symlink is followed on the way.
    pub(super) fn open(spool: &Path, path: &Path) -> io::Result<Self> {
        let dir = match path.strip_prefix(spool).ok().and_then(Path::to_str) {
            Some(rel) => file::make_dirs_beneath(file::open_root_for_passing(spool)?, rel)?,
            None => {
                std::fs::create_dir_all(path)?;
                file::open_root_for_passing(path)?
            }
        };
        Ok(Self {
            dir,
            path: path.to_owned(),
        })
    }

    /// Moves `from/name` here, under the path `rel` or a numbered one. Tells where it is.
    pub(super) fn take(&self, from: impl AsFd, name: &str, rel: &str) -> io::Result<PathBuf> {
        let (folders, last) = rel.rsplit_once('/').unwrap_or(("", rel));
        let to = file::make_dirs_beneath(&self.dir, folders)?;
        match place(from.as_fd(), name, &to, last) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                let placed = self.copy(from.as_fd(), name, &to, last)?;
                Ok(self.path.join(folders).join(placed))
            }
            placed => Ok(self.path.join(folders).join(placed?)),
        }
    }

    /// Where things are named.
    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Moves `from/name` to `to` (a folder below this one) under exactly that name; `EEXIST` where
    /// it is taken. Synced.
    pub(super) fn move_to(
        &self,
        from: impl AsFd + Copy,
        name: &str,
        to: &OwnedFd,
        new: &str,
    ) -> io::Result<()> {
        match file::rename_noreplace(from.as_fd(), name, to, new) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {}
            other => {
                // Not synced it may stand at its old place again after a power cut, whole.
                return other.map(|()| drop(sync_folder(to)));
            }
        }
        let (mut source, before) = open_in(from, name).map_err(io::Error::other)?;
        let temp = private_name(".part")?;
        let placed = self.fill(&temp, &mut source, &before).and_then(|()| {
            let after = facts_of(&rustix::fs::fstat(&source)?);
            if after.stamp != before.stamp {
                return Err(io::Error::other("the file changed while it was copied"));
            }
            file::rename_noreplace(&self.dir, &temp, to, new)
        });
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(&self.dir, &temp, AtFlags::empty());
        }
        placed?;
        let ended =
            sync_folder(to).and_then(|()| Ok(rustix::fs::unlinkat(from, name, AtFlags::empty())?));
        if ended.is_err() && rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            // It stays where it was: then one is enough.
            let _ = rustix::fs::unlinkat(to, new, AtFlags::empty());
        }
        ended
    }

    /// The move between devices. Fails, and leaves the source, if the source changes meanwhile.
    fn copy(
        &self,
        from: impl AsFd + Copy,
        name: &str,
        to: &OwnedFd,
        last: &str,
    ) -> io::Result<String> {
        let (mut source, before) = open_in(from, name).map_err(io::Error::other)?;
        let temp = private_name(".part")?;
        let placed = self.fill(&temp, &mut source, &before).and_then(|()| {
            let after = facts_of(&rustix::fs::fstat(&source)?);
            if after.stamp != before.stamp {
                return Err(io::Error::other("the file changed while it was copied"));
            }
            place(&self.dir, &temp, to, last)
        });
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(&self.dir, &temp, AtFlags::empty());
        }
        let placed = placed?;
        sync_folder(to)?;
        rustix::fs::unlinkat(from, name, AtFlags::empty())?;
        Ok(placed)
    }

    fn fill(&self, temp: &str, source: &mut File, facts: &Facts) -> io::Result<()> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&*source)?.st_mode & 0o777);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut target = File::from(rustix::fs::openat(&self.dir, temp, flags, mode)?);
        io::copy(source, &mut target)?;
        // The archive keeps the file's own time; who cannot set it still keeps the content.
        let _ = rustix::fs::futimens(&target, &times(facts));
        target.sync_all()
    }

    /// Removes half copies that an earlier life left here.
    pub(super) fn sweep(&self) -> io::Result<usize> {
        let mut swept = 0;
        for entry in rustix::fs::Dir::new(file::open_dir_beneath(&self.dir, "")?)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.starts_with(PRIVATE_PREFIX) && name.ends_with(".part") {
                rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// A rename into `to` that replaces nothing; the name it got.
fn place(from: impl AsFd, name: &str, to: &OwnedFd, last: &str) -> io::Result<String> {
    for attempt in 0..=NUMBERS_IN_ORDER + NUMBERS_AT_RANDOM {
        let candidate = match attempt {
            0 => last.to_owned(),
            n if n <= NUMBERS_IN_ORDER => numbered(last, n, NAME_MAX),
            _ => numbered(last, getrandom::u32().map_err(io::Error::other)?, NAME_MAX),
        };
        match file::rename_noreplace(from.as_fd(), name, to, &candidate) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| candidate),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The name with a number behind it (0: without), cut to so many bytes.
pub(super) fn numbered(name: &str, number: u32, max: usize) -> String {
    let end = match number {
        0 => String::new(),
        n => format!(".{n}"),
    };
    let mut cut = name.len().min(max - end.len());
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{end}", &name[..cut])
}

fn times(facts: &Facts) -> Timestamps {
    let mtime = facts.stamp.mtime_ns;
    let (seconds, rest) = (
        mtime.div_euclid(1_000_000_000),
        mtime.rem_euclid(1_000_000_000),
    );
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: rest,
        },
    }
}

/// A rename is on disk when its folder is.
fn sync_folder(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(file::open_dir_beneath(dir, "")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_name_never_grows_beyond_what_a_file_system_takes() {
        assert_eq!(numbered("a.csv", 1, NAME_MAX), "a.csv.1");
        let long = "ä".repeat(127) + "x";
        let name = numbered(&long, 4_000_000_000, NAME_MAX);
        assert!(name.len() <= NAME_MAX && name.ends_with(".4000000000"));
    }
}
