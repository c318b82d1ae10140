//! The queue file: how it gets its name, when it becomes mail, and how it is removed.
//!
//! The file has mode 0600 until its message is complete, and the queue manager ignores it; mode 0700 makes it mail. A
//! file that is dropped before is removed. After [`create`] all steps are relative to open descriptors, because a
//! confined process can open none. Follows `tests/spec/queue-file.md`, section 2. The content is left to the other
//! files of `queue::file`.

use std::fmt::{self, Display};
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat, stat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, fsync, unlink, unlinkat};

use crate::log;
use crate::sys::child::own_id;
use crate::sys::time::Moment;
use crate::sys::{ignore, unfinished};

use super::id::Id;
use super::rights::{self, Fault};

/// What main.cf sets for the file.
#[derive(Debug)]
pub struct PlaceSettings {
    /// The working directory, for messages.
    pub queue_directory: PathBuf,
    pub enable_long_queue_ids: bool,
    pub hash_queue_names: Vec<String>,
    pub hash_queue_depth: usize,
    /// Free bytes of the file system.
    pub queue_minfree: Option<u64>,
    /// Bytes of the whole file.
    pub message_size_limit: Option<u64>,
}

/// The queue of new files, relative to queue_directory.
const INCOMING: &str = "incoming";

/// The mode of a complete file: the queue manager takes files with this mode.
const COMPLETE: u32 = 0o700;

/// The flags for opening a directory.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// The time in which the name of a new subdirectory may not be on disk. File systems write such changes after 5 to 30
/// seconds, and after a few minutes in power-saving setups.
const UNSETTLED: Duration = Duration::from_secs(600);

/// The number of names that are tried. Names collide only while the clock stands still.
const TRIES: u32 = 1000;

/// A failed step. The disk, its administrator or a limit is at fault.
#[derive(Debug)]
pub struct Error {
    step: &'static str,
    path: String,
    error: io::Error,
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = log::error_text(&self.error);
        write!(f, "{} {}: {why}", self.step, self.path)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Whether message_size_limit is the reason. Limits of the disk and of the process give EFBIG as well.
    pub fn is_over_limit(&self) -> bool {
        let inner = self.error.get_ref();
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<OverLimit>)
    }
}

/// The file would exceed message_size_limit: the message is at fault, and another attempt is of no use.
#[derive(Debug)]
struct OverLimit;

impl Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("longer than message_size_limit")
    }
}

impl std::error::Error for OverLimit {}

fn at<E: Into<io::Error>>(step: &'static str, path: &str) -> impl FnOnce(E) -> Error {
    move |error| Error {
        step,
        path: path.to_owned(),
        error: error.into(),
    }
}

/// A file that is not mail yet.
#[derive(Debug)]
pub struct Incoming {
    file: fs::File,
    /// The directory of the file's name.
    directory: OwnedFd,
    name: String,
    /// The file's path for messages, relative to queue_directory.
    path: String,
    written: u64,
    limit: Option<u64>,
    is_mail: bool,
}

/// A file with its queue id as name.
#[derive(Debug)]
pub struct Named {
    pub file: Incoming,
    pub queue_id: String,
    /// The time in the id.
    pub created: Moment,
}

/// Makes a file.
///
/// Unlike Postfix, which tries for ever: a client is waiting, and can come back (`tests/spec/differences.md`, 29).
pub fn create(settings: &PlaceSettings) -> Result<Named, Error> {
    let above = stat(".").map_err(at("stat", "."))?;
    rights::judge_queue_directory(&above).map_err(|fault| settings.refuse(&fault))?;
    let incoming = open(INCOMING, DIRECTORY, Mode::empty()).map_err(at("open", INCOMING))?;
    check_directory(&incoming, settings)?;
    unfinished::catch().map_err(at("sigaction", INCOMING))?;
    // The file changes its name here, and the signal handler knows one name. So signals wait.
    let held = unfinished::hold().map_err(at("sigprocmask", INCOMING))?;
    let mut file = create_temporary(incoming, settings)?;
    let inode = fstat(&file.file).map_err(at("fstat", &file.path))?.st_ino;
    let depth = settings.depth(INCOMING);
    for _ in 0..TRIES {
        let created = Moment::now();
        let id = Id::new(created, inode, settings.enable_long_queue_ids);
        match file.rename(&id.path(depth)) {
            Ok(made) => {
                file.enter_subdirectory(settings, made)?;
                unfinished::arm(&held, file.directory(), &file.name)
                    .map_err(at("remember", INCOMING))?;
                remove_leftovers(settings, &id);
                let queue_id = id.text;
                return Ok(Named {
                    file,
                    queue_id,
                    created,
                });
            }
            // The name is a directory or belongs to another user: a later time makes another name.
            Err(Errno::EPERM | Errno::EISDIR) => {}
            Err(errno) => return Err(at("rename", &file.path)(errno)),
        }
    }
    Err(at("rename", &file.path)(Errno::EEXIST))
}

/// Checks that the queue manager can take the file, and that the disk has room for it.
fn check_directory(incoming: &OwnedFd, settings: &PlaceSettings) -> Result<(), Error> {
    let status = fstat(incoming).map_err(at("fstat", INCOMING))?;
    rights::judge_own(INCOMING, &status).map_err(|fault| settings.refuse(&fault))?;
    if let Some(queue_minfree) = settings.queue_minfree {
        let disk = fstatvfs(incoming).map_err(at("statvfs", INCOMING))?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < queue_minfree {
            return Err(at("statvfs", INCOMING)(io::Error::other(format!(
                "insufficient system storage: {free} bytes free, queue_minfree is {queue_minfree}"
            ))));
        }
    }
    Ok(())
}

/// Makes the file under a temporary name, which is not a queue id.
fn create_temporary(incoming: OwnedFd, settings: &PlaceSettings) -> Result<Incoming, Error> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut tries = 0;
    loop {
        let name = format!("{}.{}", Moment::now().usecs, own_id());
        tries += 1;
        match openat(&incoming, name.as_str(), flags, mode) {
            Ok(fd) => {
                return Ok(Incoming {
                    file: fd.into(),
                    directory: incoming,
                    path: format!("{INCOMING}/{name}"),
                    name,
                    written: 0,
                    limit: settings.message_size_limit,
                    is_mail: false,
                });
            }
            Err(Errno::EEXIST) if tries < TRIES => {}
            Err(errno) => return Err(at("create file", &format!("{INCOMING}/{name}"))(errno)),
        }
    }
}

/// Removes the bounce and delay logs of an earlier message with the same id: they would be taken for those of this
/// message.
fn remove_leftovers(settings: &PlaceSettings, id: &Id) {
    for queue in ["defer", "bounce", "trace"] {
        let path = format!("{queue}/{}", id.path(settings.depth(queue)));
        // Almost always there is none.
        ignore(unlink(path.as_str()));
    }
}

/// All reasons why [`create`] cannot make a file that a mode or an owner mends.
pub fn faults(settings: &PlaceSettings) -> io::Result<Vec<Fault>> {
    rights::judge_all(INCOMING, settings.depth(INCOMING))
}

impl PlaceSettings {
    /// The error for a fault, with the remedy.
    fn refuse(&self, fault: &Fault) -> Error {
        let path = fault.path_in(&self.queue_directory);
        let why = format!("{fault}: {}", fault.fix(&self.queue_directory));
        at("open", &path.display().to_string())(io::Error::other(why))
    }

    /// The number of levels of subdirectories of `queue`.
    fn depth(&self, queue: &str) -> usize {
        if self.hash_queue_names.iter().any(|name| name == queue) {
            self.hash_queue_depth
        } else {
            0
        }
    }
}

impl Incoming {
    /// A file that the caller has made, without a name to remove.
    #[cfg(any(test, fuzzing))]
    pub fn made(file: fs::File, directory: OwnedFd, limit: Option<u64>) -> Incoming {
        Incoming {
            file,
            directory,
            name: String::new(),
            path: "F".to_owned(),
            written: 0,
            limit,
            is_mail: false,
        }
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Gives the file its name, and makes its subdirectory if it is missing. Returns whether it was missing.
    fn rename(&mut self, name: &str) -> nix::Result<bool> {
        let rename = || renameat(&self.directory, self.name.as_str(), &self.directory, name);
        let mut made = false;
        match rename() {
            Err(Errno::ENOENT) if name.contains('/') => {
                make_subdirectories(&self.directory, name)?;
                rename()?;
                made = true;
            }
            result => result?,
        }
        self.path = format!("{INCOMING}/{name}");
        name.clone_into(&mut self.name);
        Ok(made)
    }

    /// Opens the subdirectory of the name, and syncs the subdirectory's own name: this process has `made` it, or
    /// another process may have made it a moment ago.
    fn enter_subdirectory(&mut self, settings: &PlaceSettings, made: bool) -> Result<(), Error> {
        let Some((directory, name)) = self.name.rsplit_once('/') else {
            return Ok(());
        };
        for (end, _) in self.name.match_indices('/') {
            let path = self.name.get(..end).unwrap_or_default();
            let shown = format!("{INCOMING}/{path}");
            let status = fstatat(&self.directory, path, AtFlags::empty());
            let status = status.map_err(at("stat", &shown))?;
            rights::judge_own(&shown, &status).map_err(|fault| settings.refuse(&fault))?;
            if made || is_unsettled(&shown) {
                sync_above(&self.directory, path).map_err(at("fsync directory of", &shown))?;
            }
        }
        let opened = openat(&self.directory, directory, DIRECTORY, Mode::empty());
        let name = name.to_owned();
        self.directory = opened.map_err(at("open", &format!("{INCOMING}/{directory}")))?;
        self.name = name;
        Ok(())
    }

    /// Makes the file mail: writes `first` over its beginning, sets the mode, and syncs the file and its name.
    ///
    /// After a failure the file is removed, unless the queue manager took it first: then the message may arrive twice.
    pub fn commit(mut self, first: &[u8]) -> Result<(), Error> {
        let put = self.file.write_all_at(first, 0);
        put.map_err(|error| self.write_error(error))?;
        // From here on the file may be mail, which no signal may remove.
        unfinished::disarm();
        let complete = Permissions::from_mode(COMPLETE);
        let changed = self.file.set_permissions(complete);
        changed.map_err(at("fchmod", &self.path))?;
        self.file.sync_all().map_err(at("fsync", &self.path))?;
        fsync(&self.directory).map_err(at("fsync directory of", &self.path))?;
        self.is_mail = true;
        Ok(())
    }

    pub fn write_error(&self, error: io::Error) -> Error {
        at("write", &self.path)(error)
    }
}

/// The directories of `a/b/name` are `a` and `a/b`.
fn make_subdirectories(incoming: &OwnedFd, name: &str) -> nix::Result<()> {
    for (end, _) in name.match_indices('/') {
        let directory = name.get(..end).unwrap_or_default();
        match mkdirat(incoming, directory, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Syncs the name of a directory below `incoming`.
fn sync_above(incoming: &OwnedFd, directory: &str) -> nix::Result<()> {
    match directory.rsplit_once('/') {
        None => fsync(incoming),
        Some((above, _)) => fsync(openat(incoming, above, DIRECTORY, Mode::empty())?),
    }
}

/// Whether a directory is so new that its name may not be on disk: the process that made it may not have synced it.
/// Also true if the file system does not record when a directory was made.
fn is_unsettled(path: &str) -> bool {
    let born = fs::metadata(path).and_then(|found| found.created());
    born.map_or(true, |born| is_young(born, SystemTime::now()))
}

/// Whether `born` is recent. A time in the future comes from a clock that has been set back.
fn is_young(born: SystemTime, now: SystemTime) -> bool {
    now.duration_since(born)
        .map_or(true, |age| age <= UNSETTLED)
}

/// Fails with [`OverLimit`] before the file exceeds message_size_limit.
impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = self.written.saturating_add(length);
        if self.limit.is_some_and(|limit| end > limit) {
            return Err(io::Error::other(OverLimit));
        }
        let written = self.file.write(bytes)?;
        self.written += u64::try_from(written).unwrap_or(length);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.is_mail {
            return;
        }
        let gone = {
            // After the removal another file may get the same name, so signals wait.
            let _held = unfinished::hold();
            unfinished::disarm();
            unlinkat(
                &self.directory,
                self.name.as_str(),
                UnlinkatFlags::NoRemoveDir,
            )
        };
        if let Err(errno) = gone {
            // With mode 0600 the file is not mail; with mode 0700 the queue manager has it.
            log::warning!("remove {}: {}", self.path, log::errno_text(errno));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe instead of a file, with this limit.
    fn limited(limit: u64) -> Incoming {
        let (reading, writing) = nix::unistd::pipe().unwrap();
        Incoming::made(writing.into(), reading, Some(limit))
    }

    #[test]
    fn only_our_own_limit_is_over_the_limit() {
        let mut file = limited(10);
        assert_eq!(file.write(&[0; 10]).unwrap(), 10);
        let error = file.write(&[0; 1]).unwrap_err();
        assert!(file.write_error(error).is_over_limit());
        let error = limited(10).write_all(&[0; 11]).unwrap_err();
        assert!(file.write_error(error).is_over_limit());
        for errno in [Errno::EFBIG, Errno::ENOSPC, Errno::EDQUOT, Errno::EIO] {
            assert!(!file.write_error(errno.into()).is_over_limit(), "{errno}");
        }
        let error = io::Error::from(io::ErrorKind::FileTooLarge);
        assert!(!file.write_error(error).is_over_limit());
    }

    #[test]
    fn a_directory_is_young_until_it_has_settled() {
        let now = SystemTime::now();
        let just_past = UNSETTLED + Duration::from_nanos(1);
        for (born, young) in [
            (now, true),
            (now - UNSETTLED, true),
            (now - just_past, false),
            (SystemTime::UNIX_EPOCH, false),
            (now + just_past, true),
        ] {
            assert_eq!(is_young(born, now), young, "{born:?}");
        }
        assert!(is_unsettled("/nowhere/at/all"));
        assert!(is_unsettled("/proc/self"));
    }
}
