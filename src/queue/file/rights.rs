//! Checks that no other user can move files in the incoming queue.
//!
//! Unlike Postfix, which uses a queue that other users can write to, this program makes no file there
//! (`tests/spec/differences.md`, 47). A user who can write to a directory can take messages out of it, or put files
//! into it; a user who can write to the directory above can replace it. Group and others count alike: a group has other
//! members, and an access list for one user appears as a right of the group. In Postfix's own queue `incoming` has mode
//! 0700, and queue_directory, which is root's, has mode 0755.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::{FileStat, stat};
use nix::unistd::geteuid;

/// The write permission of users other than the owner.
const OTHERS_WRITE: u32 = 0o022;

/// With the sticky bit a user can add files, but cannot move those of another user.
const STICKY: u32 = 0o1000;

const ALL_BITS: u32 = 0o7777;

/// A fault of a directory, and the mode that mends it, in the form of chmod(1).
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Relative to queue_directory; empty for queue_directory itself.
    path: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Owner(u32),
    Mode { mode: u32, wanted: &'static str },
}

impl Fault {
    /// The command that mends the fault.
    pub fn fix(&self, queue_directory: &Path) -> String {
        let path = self.path_in(queue_directory);
        match self.kind {
            Kind::Owner(_) => format!("chown {} {}", geteuid(), path.display()),
            Kind::Mode { wanted, .. } => format!("chmod {wanted} {}", path.display()),
        }
    }

    pub fn path_in(&self, queue_directory: &Path) -> PathBuf {
        if self.path.is_empty() {
            queue_directory.to_owned()
        } else {
            queue_directory.join(&self.path)
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Owner(uid) => write!(
                f,
                "the directory belongs to uid {uid}, and this process has uid {}",
                geteuid()
            ),
            Kind::Mode { mode, .. } => {
                write!(
                    f,
                    "its mode {mode:04o} lets other users than its owner write to it"
                )
            }
        }
    }
}

/// Judges `incoming` or a directory below it.
pub fn judge_own(path: &str, status: &FileStat) -> Result<(), Fault> {
    let fault = |kind| {
        let path = path.to_owned();
        Err(Fault { path, kind })
    };
    if status.st_uid != geteuid().as_raw() {
        return fault(Kind::Owner(status.st_uid));
    }
    let mode = status.st_mode & ALL_BITS;
    if mode & OTHERS_WRITE != 0 {
        let wanted = "0700";
        return fault(Kind::Mode { mode, wanted });
    }
    Ok(())
}

/// Judges queue_directory, which any user may own. `incoming` in it belongs to this user, so that a sticky bit is
/// enough.
pub fn judge_queue_directory(status: &FileStat) -> Result<(), Fault> {
    let mode = status.st_mode & ALL_BITS;
    if mode & OTHERS_WRITE == 0 || mode & STICKY != 0 {
        return Ok(());
    }
    Err(Fault {
        path: String::new(),
        kind: Kind::Mode {
            mode,
            wanted: "go-w",
        },
    })
}

/// Judges queue_directory, which is the working directory, and the directory `path` in it with its levels of
/// subdirectories.
pub fn judge_all(path: &str, depth: usize) -> io::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    faults.extend(judge_queue_directory(&stat(".")?).err());
    judge_tree(path, depth, &mut faults)?;
    Ok(faults)
}

fn judge_tree(path: &str, depth: usize, faults: &mut Vec<Fault>) -> io::Result<()> {
    faults.extend(judge_own(path, &stat(path)?).err());
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name();
            let below = format!("{path}/{}", name.to_string_lossy());
            judge_tree(&below, depth - 1, faults)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory of the test's user with this mode.
    fn status(mode: u32) -> FileStat {
        let mut status = stat("/").unwrap();
        status.st_mode = libc::S_IFDIR | mode;
        status.st_uid = geteuid().as_raw();
        status
    }

    #[test]
    fn every_right_to_write_of_others_is_seen_and_no_other_bit() {
        for mode in 0..=0o7777 {
            let by_others = mode & 0o020 != 0 || mode & 0o002 != 0;
            let own = judge_own("incoming", &status(mode));
            assert_eq!(own.is_err(), by_others, "{mode:o}");
            let above = judge_queue_directory(&status(mode));
            assert_eq!(above.is_err(), by_others && mode & 0o1000 == 0, "{mode:o}");
        }
    }

    #[test]
    fn a_fault_says_what_mends_it() {
        let queue = Path::new("/var/spool/postfix");
        let fault = judge_own("incoming/A", &status(0o2775)).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "its mode 2775 lets other users than its owner write to it"
        );
        assert_eq!(fault.fix(queue), "chmod 0700 /var/spool/postfix/incoming/A");
        let fault = judge_queue_directory(&status(0o777)).unwrap_err();
        assert_eq!(fault.fix(queue), "chmod go-w /var/spool/postfix");
        let mut other = status(0o700);
        other.st_uid ^= 1;
        let fault = judge_own("incoming", &other).unwrap_err();
        let own = geteuid();
        assert_eq!(
            fault.fix(queue),
            format!("chown {own} /var/spool/postfix/incoming")
        );
        judge_queue_directory(&other).unwrap();
    }

    #[test]
    fn directories_are_judged_down_to_the_depth_of_the_queue_and_no_further() {
        let name = format!("qmqpd-rights-{}", std::process::id());
        let queue = std::env::temp_dir().join(name);
        let lowest = queue.join("A/B");
        fs::create_dir_all(&lowest).unwrap();
        for directory in [&queue, &queue.join("A")] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        fs::set_permissions(&lowest, fs::Permissions::from_mode(0o777)).unwrap();
        for (depth, faulty) in [(0, 0), (1, 0), (2, 1)] {
            let mut faults = Vec::new();
            judge_tree(queue.to_str().unwrap(), depth, &mut faults).unwrap();
            assert_eq!(faults.len(), faulty, "{depth}: {faults:?}");
        }
        fs::remove_dir_all(&queue).unwrap();
    }
}
