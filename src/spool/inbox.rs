//! The local folder of a route that downloads: where a file is put together under its temp name,
//! and how it comes to stand under its final one. Everything is opened strictly beneath the folder,
//! no symlink is followed, and no part is ever seen under a final name: content is synced, then
//! renamed, then the rename is synced, and only then does anybody count on it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Stamp;
use super::locked::{self, Locked};
use crate::core::arrivals::Version;
use crate::sys::file;

/// What [`Stamp`] has for a time that the server does not tell.
const UNTOLD: i64 = -1;

impl Stamp {
    /// A version of a remote file.
    pub fn of_remote(version: Version) -> Self {
        Self {
            dev: 0,
            ino: 0,
            size: version.size,
            mtime_ns: version
                .modified
                .map_or(UNTOLD, |t| t.saturating_mul(1_000_000_000)),
        }
    }

    /// The version of the remote file that this is.
    pub fn to_remote(self) -> Version {
        let modified = (self.mtime_ns != UNTOLD).then(|| self.mtime_ns.div_euclid(1_000_000_000));
        Version {
            size: self.size,
            modified,
        }
    }
}

/// The folder, open.
pub struct Inbox {
    root: OwnedFd,
    here: (u64, u64),
}

/// Why a target cannot be had.
#[derive(Debug)]
pub enum Taken {
    /// Somebody holds it.
    Locked(Locked),
    /// What stands there is no file.
    NotRegular,
    /// Anything else.
    Io(io::Error),
}

impl From<io::Error> for Taken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The folder of a path below another one, and the name in it.
fn split(rel: &str) -> (&str, &str) {
    rel.rsplit_once('/').unwrap_or(("", rel))
}

impl Inbox {
    /// Opens the folder.
    ///
    /// # Errors
    /// What `open` says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let root = file::open_root_for_passing(folder)?;
        let stat = rustix::fs::fstat(&root)?;
        #[allow(clippy::unnecessary_cast)]
        let here = (stat.st_dev as u64, stat.st_ino as u64);
        Ok(Self { root, here })
    }

    /// The remote version as an attempt in this folder has it: in another folder (a volume that is
    /// not mounted) the absence of a temp name proves nothing.
    pub fn stamp(&self, version: Stamp) -> Stamp {
        let (dev, ino) = self.here;
        Stamp {
            dev,
            ino,
            ..version
        }
    }

    /// Makes a temp file, and the folders above it.
    ///
    /// # Errors
    /// What the file system says; the name is never there already.
    pub fn begin(&self, temp: &str) -> io::Result<File> {
        let (folders, name) = split(temp);
        let dir = file::make_dirs_beneath(&self.root, folders)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o666))?;
        Ok(File::from(made))
    }

    /// Goes on with the part `old` under the name `temp`. None where there is no such part.
    ///
    /// # Errors
    /// What the file system says.
    pub fn go_on(&self, old: &str, temp: &str) -> io::Result<Option<File>> {
        let (Some(from), (_, name)) = (self.dir_of(old)?, split(temp)) else {
            return Ok(None);
        };
        // Both are of one file: they stand in one folder.
        match file::rename_noreplace(&from, split(old).1, &from, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Some(File::from(rustix::fs::openat(
            &from,
            name,
            flags,
            Mode::empty(),
        )?)))
    }

    /// Bytes of the file that stands under this name; none if there is none.
    ///
    /// # Errors
    /// Something else stands there, or it cannot be looked at.
    pub fn size_of(&self, rel: &str) -> Result<Option<u64>, Taken> {
        match file::stat_beneath(&self.root, rel) {
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Ok(_) => Err(Taken::NotRegular),
        }
    }

    /// Locks what stands under the final name exclusively (S2): whoever holds it is still at work.
    /// None if nothing stands there; the locks end with the file.
    ///
    /// # Errors
    /// [`Taken`].
    pub fn lock(&self, rel: &str) -> Result<Option<File>, Taken> {
        if self.size_of(rel)?.is_none() {
            return Ok(None);
        }
        let (folders, name) = split(rel);
        let dir = file::pass_dir_beneath(&self.root, folders)?;
        let open = |how: OFlags| {
            let flags =
                how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            rustix::fs::openat(&dir, name, flags, Mode::empty())
        };
        let opened = match open(OFlags::RDWR) {
            // A lock of one kind is better than none.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => open(OFlags::RDONLY),
            other => other,
        };
        let target = match opened {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => return Ok(None),
            other => File::from(other.map_err(io::Error::from)?),
        };
        locked::own(&target).map_err(Taken::Locked)?;
        Ok(Some(target))
    }

    /// Whether something stands under this temp name.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn holds(&self, temp: &str) -> io::Result<bool> {
        match file::stat_beneath(&self.root, temp) {
            Err(error) if is_missing(&error) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Gives a whole and synced temp file its final name, for good. False where that is taken and
    /// must not be replaced.
    ///
    /// # Errors
    /// What the file system says.
    pub fn place(&self, temp: &str, rel: &str, replace: bool) -> io::Result<bool> {
        let dir = file::pass_dir_beneath(&self.root, split(temp).0)?;
        let (old, new) = (split(temp).1, split(rel).1);
        let renamed = match replace {
            true => rustix::fs::renameat(&dir, old, &dir, new).map_err(io::Error::from),
            false => file::rename_noreplace(&dir, old, &dir, new),
        };
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !replace => Ok(false),
            other => {
                other?;
                self.sync(temp)?;
                Ok(true)
            }
        }
    }

    /// Syncs the folder of a name: a rename in it that happened stands for good then.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self, rel: &str) -> io::Result<()> {
        let dir = file::open_dir_beneath(&self.root, split(rel).0)?;
        Ok(rustix::fs::fsync(dir)?)
    }

    /// Takes a temp file away; that it is gone already is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn discard(&self, temp: &str) -> io::Result<()> {
        let Some(dir) = self.dir_of(temp)? else {
            return Ok(());
        };
        match rustix::fs::unlinkat(&dir, split(temp).1, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Takes away the temp files of earlier lives: those whose name `is_ours` and that are not
    /// kept. Asks `goes_on` at each entry. Tells how many there were.
    ///
    /// # Errors
    /// A folder that cannot be read; what was found before is gone.
    pub fn sweep(
        &self,
        is_ours: impl Fn(&str) -> bool,
        kept: &[String],
        mut goes_on: impl FnMut() -> bool,
    ) -> io::Result<usize> {
        let mut swept = 0;
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let dir = match file::open_dir_beneath(&self.root, &folder) {
                Err(error) if is_missing(&error) && !folder.is_empty() => continue,
                other => other?,
            };
            for entry in rustix::fs::Dir::read_from(&dir)? {
                let entry = entry?;
                if !goes_on() {
                    return Ok(swept);
                }
                let Ok(name) = entry.file_name().to_str() else {
                    continue;
                };
                let rel = match &*folder {
                    "" => name.to_owned(),
                    folder => format!("{folder}/{name}"),
                };
                match entry.file_type() {
                    FileType::Directory if name != "." && name != ".." => folders.push(rel),
                    FileType::RegularFile if is_ours(name) && !kept.contains(&rel) => {
                        rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
                        swept += 1;
                    }
                    _ => {}
                }
            }
        }
        Ok(swept)
    }

    fn dir_of(&self, rel: &str) -> io::Result<Option<OwnedFd>> {
        match file::pass_dir_beneath(&self.root, split(rel).0) {
            Err(error) if is_missing(&error) => Ok(None),
            other => other.map(Some),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn inbox() -> (tempfile::TempDir, Inbox) {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(dir.path()).unwrap();
        (dir, inbox)
    }

    #[test]
    fn a_file_is_put_together_beside_its_final_name_and_then_stands_there_whole() {
        let (dir, inbox) = inbox();
        let mut temp = inbox.begin("a/b/.f.part").unwrap();
        temp.write_all(b"whole").unwrap();
        assert!(inbox.holds("a/b/.f.part").unwrap() && inbox.size_of("a/b/f").unwrap().is_none());
        assert!(inbox.place("a/b/.f.part", "a/b/f", false).unwrap());
        assert_eq!(std::fs::read(dir.path().join("a/b/f")).unwrap(), b"whole");
        assert_eq!(inbox.size_of("a/b/f").unwrap(), Some(5));
        inbox.begin("a/b/.g.part").unwrap();
        assert!(
            !inbox.place("a/b/.g.part", "a/b/f", false).unwrap(),
            "taken"
        );
        assert!(inbox.place("a/b/.g.part", "a/b/f", true).unwrap());
        assert_eq!(inbox.size_of("a/b/f").unwrap(), Some(0));
    }

    #[test]
    fn no_planted_symlink_leads_outside() {
        let (dir, inbox) = inbox();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("sub")).unwrap();
        assert!(inbox.begin("sub/.f.part").is_err());
        assert!(inbox.begin("../.f.part").is_err());
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "v").unwrap();
        symlink(&victim, dir.path().join("f")).unwrap();
        assert!(matches!(inbox.lock("f"), Err(Taken::NotRegular)));
        inbox.begin(".f.part").unwrap();
        assert!(
            inbox.place(".f.part", "f", true).unwrap(),
            "the symlink itself is replaced"
        );
        assert_eq!(std::fs::read(&victim).unwrap(), b"v");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_target_that_others_hold_is_not_had_and_its_holder_is_told() {
        let (dir, inbox) = inbox();
        assert!(inbox.lock("f").unwrap().is_none());
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let reader = File::open(dir.path().join("f")).unwrap();
        assert!(file::lock_shared(&reader).unwrap());
        let Err(Taken::Locked(locked)) = inbox.lock("f") else {
            unreachable!("a reader holds it");
        };
        let own = std::process::id();
        assert!(
            locked.to_string().contains(&format!("pid {own}")),
            "{locked}"
        );
        drop(reader);
        let held = inbox.lock("f").unwrap();
        assert!(held.is_some() && matches!(inbox.lock("f"), Err(Taken::Locked(_))));
    }

    #[test]
    fn parts_are_gone_on_with_discarded_and_swept() {
        let (dir, inbox) = inbox();
        inbox
            .begin("d/.f.a-1.part")
            .unwrap()
            .write_all(b"part")
            .unwrap();
        let part = inbox
            .go_on("d/.f.a-1.part", "d/.f.a-2.part")
            .unwrap()
            .unwrap();
        assert_eq!(part.metadata().unwrap().len(), 4);
        assert!(
            inbox
                .go_on("d/.f.a-1.part", "d/.f.a-3.part")
                .unwrap()
                .is_none()
        );
        assert!(inbox.go_on("none/.x", "none/.y").unwrap().is_none());
        inbox.discard("none/.x").unwrap();
        for name in [".x.a-4.part", "d/.y.a-5.part", "d/.z.b-6.part"] {
            inbox.begin(name).unwrap();
        }
        let kept = ["d/.f.a-2.part".to_owned()];
        assert_eq!(
            inbox
                .sweep(|name| name.contains(".a-"), &kept, || true)
                .unwrap(),
            2
        );
        assert!(dir.path().join("d/.z.b-6.part").exists());
        inbox.discard("d/.f.a-2.part").unwrap();
        inbox.discard("d/.f.a-2.part").unwrap();
        assert!(!dir.path().join("d/.f.a-2.part").exists());
    }

    #[test]
    fn a_remote_version_keeps_what_it_tells() {
        for modified in [None, Some(0), Some(-5), Some(1_700_000_000)] {
            let version = Version { size: 7, modified };
            assert_eq!(Stamp::of_remote(version).to_remote(), version);
        }
    }
}
