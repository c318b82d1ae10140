//! The lock that lets one idle process of a service wait for connections.
//!
//! master(8) starts one process for each client that is served at a time. Without the lock every connection would wake
//! all idle processes. The file is the one of Postfix's own processes of the service. Follows `tests/spec/master.md`,
//! sections 3 and 4.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::FlockArg;

use crate::exit::Fatal;
use crate::log;
use crate::options::Transport;
use crate::sys::alarm;

use super::channel::Channel;

/// How long to wait for the lock before checking that master is still there.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// The lock file of a service; `None` if master runs one process only.
#[derive(Debug)]
pub struct Lock(Option<File>);

impl Lock {
    /// For the only process of its service (`-l`).
    pub const NONE: Lock = Lock(None);

    /// Opens `pid/TRANSPORT.SERVICE` below the working directory, which master has set to queue_directory.
    pub fn open(transport: Transport, service: &str) -> Result<Lock, Fatal> {
        let path = Path::new("pid").join(format!("{}.{service}", transport.name()));
        match open_safely(&path) {
            Ok(file) => Ok(Lock(Some(file))),
            Err(error) => Err(Fatal::Text(format!(
                "open lock file {}: {}",
                path.display(),
                log::error_text(&error)
            ))),
        }
    }

    /// Waits until no other process waits for connections (true), or until the channel to master has ended (false). A
    /// stopped process could hold the lock for ever.
    pub fn acquire(&self, channel: &Channel) -> Result<bool, Fatal> {
        let Some(file) = &self.0 else {
            return Ok(true);
        };
        let failed = |error: &io::Error| {
            let text = log::error_text(error);
            Fatal::Text(format!("select lock: {text}"))
        };
        match flock(file, FlockArg::LockExclusiveNonblock) {
            Err(Errno::EWOULDBLOCK | Errno::EINTR) => {}
            result => return result.map(|()| true).map_err(|errno| failed(&errno.into())),
        }
        loop {
            let locked = alarm::bounded(LOOK_AFTER, || flock(file, FlockArg::LockExclusive));
            alarm::disarm();
            match locked {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                result => return result.map(|()| true).map_err(|error| failed(&error)),
            }
            if channel.has_ended() {
                return Ok(false);
            }
        }
    }

    pub fn release(&self) -> Result<(), Fatal> {
        let Some(file) = &self.0 else {
            return Ok(());
        };
        loop {
            match flock(file, FlockArg::Unlock) {
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    let text = log::errno_text(errno);
                    return Err(Fatal::Text(format!("select unlock: {text}")));
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "nix's Flock owns the file, and is another value locked and unlocked"
)]
fn flock(file: &File, what: FlockArg) -> nix::Result<()> {
    nix::fcntl::flock(file.as_raw_fd(), what)
}

/// Opens or makes the file. It must not follow a link: another user could write to the directory if root's permissions
/// there were changed.
fn open_safely(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match options.create_new(true).open(path) {
                // Two processes of a service start at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    options.create_new(false).open(path)?
                }
                result => result?,
            }
        }
        result => result?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if found.nlink() != 1 {
        return Err(io::Error::other("file has more than one link"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;

    use super::*;
    use crate::sys::child::bounded_child;

    #[test]
    fn a_process_that_waits_for_the_lock_leaves_with_master() {
        let path = std::env::temp_dir().join(format!("qmqpd-held-{}", std::process::id()));
        let holder = open_safely(&path).unwrap();
        flock(&holder, FlockArg::LockExclusive).unwrap();
        alarm::init().unwrap();
        // The alarm belongs to the whole process, hence a child.
        let answer = bounded_child(Duration::from_secs(60), || {
            alarm::init().unwrap();
            let (master, fd) = nix::unistd::pipe().unwrap();
            let channel = Channel::new(fd, None).ok().unwrap();
            let lock = Lock(Some(open_safely(&path).unwrap()));
            drop(master);
            let begin = Instant::now();
            let gone = lock.acquire(&channel).ok();
            let took = begin.elapsed();
            let in_time = LOOK_AFTER <= took && took < LOOK_AFTER * 4;
            flock(&holder, FlockArg::Unlock).unwrap();
            let had = lock.acquire(&channel).ok();
            let quiet = nix::unistd::alarm::cancel().is_none();
            vec![u8::from(
                gone == Some(false) && in_time && had == Some(true) && quiet,
            )]
        });
        fs::remove_file(&path).unwrap();
        assert_eq!(answer.unwrap(), Some(vec![1]));
    }

    #[test]
    fn only_a_file_of_its_own_is_opened() {
        let dir = std::env::temp_dir().join(format!("qmqpd-lock-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("inet.628");
        for _ in 0..2 {
            open_safely(&path).unwrap();
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        symlink(&path, dir.join("link")).unwrap();
        open_safely(&dir.join("link")).unwrap_err();
        open_safely(&dir).unwrap_err();
        fs::hard_link(&path, dir.join("second")).unwrap();
        open_safely(&path).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
    }
}
