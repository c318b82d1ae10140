//! Landlock: a process keeps itself from changing the file system, even where its user may.
//!
//! Open files are not affected, and neither is reading. Landlock does not cover chmod, chown, times and connecting to a
//! socket: a filter of system calls does. Kernels have it since Linux 5.13, if it is built in and not turned off; each
//! function returns whether it applies. Follows landlock(7), landlock_create_ruleset(2), landlock_add_rule(2) and
//! landlock_restrict_self(2). Which process gets which wall is left to `jail`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

// The rights of <linux/landlock.h>, LANDLOCK_ACCESS_FS_*, which the libc package does not have.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
const TRUNCATE: u64 = 1 << 14;

/// All changes of the file system in the first version, and running a program. Every version also forbids to link or
/// move a file to another directory.
const CHANGES: u64 = EXECUTE
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_CHAR
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_BLOCK
    | MAKE_SYM;

/// The rights to forbid, the most complete set first. A kernel refuses a set with an unknown right (EINVAL).
const SETS: [u64; 2] = [CHANGES | TRUNCATE, CHANGES];

/// LANDLOCK_CREATE_RULESET_VERSION: asks for the version only.
const VERSION: u32 = 1;

/// LANDLOCK_RULE_PATH_BENEATH
const PATH_BENEATH: libc::c_int = 1;

/// struct landlock_ruleset_attr of the first version.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
}

/// struct landlock_path_beneath_attr
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: RawFd,
}

/// The version of the kernel's Landlock; `None` if it has none, or if a launcher's filter forbids the question.
pub fn version() -> Option<u32> {
    // SAFETY: with this flag the call takes a null pointer and the size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<Ruleset>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).ok().filter(|&version| version > 0)
}

/// Forbids this thread permanently to open a file for writing, to cut, create, remove, rename or link one, and to run a
/// program. Returns whether this applies: not if the kernel has no Landlock. The caller has set no_new_privs.
pub fn forbid_changes() -> nix::Result<bool> {
    enforce(|_| Ok(()))
}

/// The same as [`forbid_changes`], except that files in this directory, and below it, may be removed.
pub fn forbid_changes_but_removal(directory: BorrowedFd<'_>) -> nix::Result<bool> {
    enforce(|ruleset| {
        let rule = PathBeneath {
            allowed_access: REMOVE_FILE,
            parent_fd: directory.as_raw_fd(),
        };
        // SAFETY: the rule is live, has the layout of this type of rule, and is only read.
        let status = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        };
        Errno::result(status).map(drop)
    })
}

fn enforce(add_rules: impl FnOnce(&OwnedFd) -> nix::Result<()>) -> nix::Result<bool> {
    let Some(ruleset) = ruleset()? else {
        return Ok(false);
    };
    add_rules(&ruleset)?;
    // SAFETY: takes a descriptor, which is open, and a number.
    let status =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    Errno::result(status).map(|_| true)
}

/// A set of rights that are forbidden unless a rule allows them; `None` without Landlock.
fn ruleset() -> nix::Result<Option<OwnedFd>> {
    let mut result = Err(Errno::EINVAL);
    for handled_access_fs in SETS {
        result = create(&Ruleset { handled_access_fs });
        if result.as_ref().err() != Some(&Errno::EINVAL) {
            break;
        }
    }
    match result {
        Ok(ruleset) => Ok(Some(ruleset)),
        // Not built in; not turned on; forbidden by a launcher's filter (the kernel itself never answers so).
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn create(ruleset: &Ruleset) -> nix::Result<OwnedFd> {
    // SAFETY: the structure is live, is passed with its size, and is only read.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::from_ref(ruleset),
            size_of::<Ruleset>(),
            0_u32,
        )
    };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_beyond_int| Errno::EBADF)?;
    // SAFETY: the call has just opened the descriptor, close-on-exec, for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use nix::sys::prctl;
    use nix::sys::stat::Mode;
    use nix::unistd::{mkfifo, truncate};

    use super::*;
    use crate::skip::skip_for_kernel;
    use crate::sys::child::tests::alone;

    type Act = fn(&Path) -> io::Result<()>;

    /// Acts in a directory that has the files `a` and `d/a` and an empty directory `e`.
    const REMOVALS: [(&str, Act); 2] = [
        ("remove", |at| fs::remove_file(at.join("a"))),
        ("remove below", |at| fs::remove_file(at.join("d/a"))),
    ];
    const CHANGES: [(&str, Act); 11] = [
        ("remove a directory", |at| fs::remove_dir(at.join("e"))),
        ("rename", |at| fs::rename(at.join("a"), at.join("b"))),
        ("move", |at| fs::rename(at.join("a"), at.join("e/a"))),
        ("link", |at| fs::hard_link(at.join("a"), at.join("e/a"))),
        ("link symbolically", |at| symlink("a", at.join("b"))),
        ("create", |at| File::create_new(at.join("b")).map(drop)),
        ("write", |at| {
            OpenOptions::new().append(true).open(at.join("a")).map(drop)
        }),
        ("make a directory", |at| fs::create_dir(at.join("b"))),
        ("make a fifo", |at| {
            Ok(mkfifo(&at.join("b"), Mode::S_IRUSR)?)
        }),
        ("bind", |at| UnixListener::bind(at.join("b")).map(drop)),
        ("run", |at| Command::new(at.join("p")).status().map(drop)),
    ];

    /// Two directories in a temporary one.
    fn places(name: &str) -> (PathBuf, [PathBuf; 2]) {
        let top = std::env::temp_dir().join(format!("qmqpd-{name}-{}", std::process::id()));
        let places = ["held", "other"].map(|place| top.join(place));
        for place in &places {
            for directory in ["d", "e"] {
                fs::create_dir_all(place.join(directory)).unwrap();
            }
            for file in ["a", "d/a"] {
                fs::write(place.join(file), "x").unwrap();
            }
            fs::copy("/bin/true", place.join("p")).unwrap();
        }
        (top, places)
    }

    /// The acts that a process cannot do behind a wall, each in a process of its own; `None` without Landlock.
    fn denied(
        name: &str,
        acts: &[(&'static str, Act)],
        wall: impl Fn(&[PathBuf; 2]) -> nix::Result<bool>,
    ) -> [Vec<&'static str>; 2] {
        [0, 1].map(|at| {
            let denied = acts.iter().filter(|(_, act)| {
                let (top, places) = places(name);
                let denied = alone(|| {
                    prctl::set_no_new_privs().unwrap();
                    assert!(wall(&places).unwrap());
                    assert_eq!(fs::read(places[at].join("a")).unwrap(), b"x");
                    act(&places[at]).is_err_and(|error| {
                        let errno = error.raw_os_error().map(Errno::from_raw);
                        matches!(errno, Some(Errno::EACCES | Errno::EXDEV))
                    })
                });
                fs::remove_dir_all(top).unwrap();
                denied
            });
            denied.map(|&(what, _)| what).collect()
        })
    }

    fn names(acts: &[(&'static str, Act)]) -> Vec<&'static str> {
        acts.iter().map(|&(name, _)| name).collect()
    }

    fn has_none(test: &str) -> bool {
        let none = version().is_none();
        if none {
            skip_for_kernel(test, "there is no Landlock");
        }
        none
    }

    #[test]
    fn nothing_can_be_changed_behind_the_wall() {
        if has_none("nothing_can_be_changed_behind_the_wall") {
            return;
        }
        for acts in [&REMOVALS[..], &CHANGES[..]] {
            let denied = denied("wall", acts, |_| forbid_changes());
            assert_eq!(denied, [names(acts), names(acts)]);
        }
        // The wall has prevented them.
        for acts in [&REMOVALS[..], &CHANGES[..]] {
            let denied = denied("no-wall", acts, |_| Ok(true));
            assert_eq!(denied, [names(&[]), names(&[])]);
        }
    }

    #[test]
    fn a_file_can_be_cut_by_no_path_where_the_kernel_knows_of_it() {
        let name = "a_file_can_be_cut_by_no_path_where_the_kernel_knows_of_it";
        if version().is_none_or(|version| version < 3) {
            skip_for_kernel(
                name,
                "Landlock knows nothing of cutting files, or is not there",
            );
            return;
        }
        let acts: [(&str, Act); 1] = [("cut", |at| Ok(truncate(&at.join("a"), 0)?))];
        let denied = denied("cut", &acts, |_| forbid_changes());
        assert_eq!(denied, [["cut"], ["cut"]]);
    }

    #[test]
    fn files_can_be_removed_below_the_held_directory_alone() {
        if has_none("files_can_be_removed_below_the_held_directory_alone") {
            return;
        }
        let wall = |[held, _]: &[PathBuf; 2]| {
            let held = File::open(held).unwrap();
            forbid_changes_but_removal(held.as_fd())
        };
        let removals = denied("removal", &REMOVALS, wall);
        assert_eq!(removals, [names(&[]), names(&REMOVALS)]);
        let changes = denied("removal", &CHANGES, wall);
        assert_eq!(changes, [names(&CHANGES), names(&CHANGES)]);
    }
}
