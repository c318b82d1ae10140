//! How to give rights up: groups, root directory, user; then the system calls themselves.
//!
//! Every step is one call that fails under its own name. Does not know who gives up what: `service` names the owner,
//! and whoever still acts after confinement says with a [`Need`] what for. Authority: credentials(7), chroot(2),
//! seccomp(2); the order and the words of errors are Postfix's.
#![forbid(unsafe_code)]

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod filter;
#[cfg(test)]
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod kernel_tests;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod limits;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod table;
#[cfg(test)]
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod tests;

use std::fmt::{self, Display};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, setgid, setgroups, setuid};

use crate::config::Owner;
use crate::log;
use crate::sys::seccomp::{self, Instruction};
use crate::sys::{capability, landlock, processor};

/// Whether there is a filter of system calls for this architecture.
pub const SUPPORTED: bool = cfg!(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
));

/// How much time on the processor a confined process may take, so that one that has been taken over ends some day. 100 MiB
/// take a quarter of a second, and 200 seconds where each byte comes alone. Without a limit of messages 400 GiB would fit
/// in, and they would have to fit into memory.
pub const PROCESSOR_LIMIT: Duration = Duration::from_secs(1000);

/// What is amiss where a launcher has set the user and not the groups.
pub const GROUP_OF_ROOT: &str = "the process was started as an ordinary user in group 0: \
    start it as root, or with the groups of that user alone";

/// What a room still does after confinement that not every serving process does.
#[derive(Debug, Clone, Copy)]
pub enum Need<'fd> {
    /// Write this file to its end, write over its beginning, change its mode, fsync it.
    File(BorrowedFd<'fd>),
    /// Remove a file of this directory, and fsync the directory.
    Unlink(BorrowedFd<'fd>),
    /// Connect this socket, which is made already, to an address of this length.
    Connect(BorrowedFd<'fd>, u32),
    /// Wait for this child.
    Wait(Pid),
}

/// A right that could not be given up. The process must not serve: the machine or its administrator is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// This call failed. For filters: the kernel has none, or the launcher keeps the process from having one.
    Call(String, Errno),
    /// All calls succeeded, and root can still be had back: the owner is root, or secure bits keep capabilities.
    StillRoot(Uid),
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Call(call, errno) => write!(f, "{call}: {}", log::errno_text(*errno)),
            Error::StillRoot(uid) => write!(f, "setuid({uid}): root privileges can be regained"),
        }
    }
}

fn at(call: &'static str) -> impl FnOnce(Errno) -> Error {
    |errno| Error::Call(call.to_owned(), errno)
}

impl std::error::Error for Error {}

/// What the kernel has to keep a process from what it does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    pub no_new_privs: bool,
    pub seccomp: bool,
    /// Its version. Nothing but one wall of two is missing where there is none.
    pub landlock: Option<u32>,
}

/// The walls that a process on this machine can have.
pub fn walls() -> Walls {
    Walls {
        no_new_privs: prctl::get_no_new_privs().is_ok(),
        seccomp: seccomp::is_available(),
        landlock: landlock::version(),
    }
}

impl Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no = |is: bool| if is { "" } else { "no " };
        let (privs, seccomp) = (no(self.no_new_privs), no(self.seccomp));
        write!(f, "{privs}no_new_privs, {seccomp}seccomp, ")?;
        match self.landlock {
            Some(version) => write!(f, "Landlock (version {version})"),
            None => f.write_str("no Landlock"),
        }
    }
}

/// Becomes `owner` for good, in the root directory `root` if one is given. For a process whose effective user is root.
/// What needs the outside of a chroot (zone file, log socket) has been opened.
pub fn drop_privileges(owner: &Owner, root: Option<&Path>) -> Result<(), Error> {
    setgid(owner.gid).map_err(|errno| Error::Call(format!("setgid({})", owner.gid), errno))?;
    setgroups(&owner.groups).map_err(at("initgroups"))?;
    if let Some(root) = root {
        chroot(root).map_err(|errno| Error::Call(format!("chroot({})", root.display()), errno))?;
        chdir("/").map_err(at("chdir(/)"))?;
    }
    setuid(owner.uid).map_err(|errno| Error::Call(format!("setuid({})", owner.uid), errno))?;
    // With a real or saved id of root, or the capability, one of these succeeds.
    if setuid(Uid::from_raw(0)).is_ok() || setgid(Gid::from_raw(0)).is_ok() {
        return Err(Error::StillRoot(owner.uid));
    }
    drop_capabilities()?;
    // A change of user has put it back to what fs.suid_dumpable says.
    prctl::set_dumpable(false).map_err(at("prctl(PR_SET_DUMPABLE)"))
}

/// Gives up what the launcher may have left to a user who is not root: ambient capabilities outlive a change of user
/// made by the launcher, and inheritable ones any.
pub fn drop_capabilities() -> Result<(), Error> {
    capability::drop_all().map_err(at("capset"))
}

/// Gives up, for a process and all its children, the system calls that none of them needs: those that start programs,
/// change users, trace or kill others, mount, load. A child still does [`confine`] after this, or [`confine_resolver`]; both
/// filters are then in force.
pub fn confine_resident() -> Result<(), Error> {
    prctl::set_no_new_privs().map_err(at("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    filter_resident().map_err(at("prctl(PR_SET_SECCOMP)"))
}

/// Gives up, for a process that does nothing but look a name up, what no resolver needs: the same, and all changes of files.
/// Where the kernel has Landlock, that is a second wall against them.
pub fn confine_resolver() -> Result<(), Error> {
    prctl::set_no_new_privs().map_err(at("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    landlock::forbid_changes().map_err(at("landlock_restrict_self"))?;
    filter_resolver().map_err(at("prctl(PR_SET_SECCOMP)"))
}

/// The filter for a program that is asked about a client: it runs with the rights of its user, and acts on no other process of
/// that user's. Nothing where there is none for this architecture.
pub fn program_filter() -> Vec<Instruction> {
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))]
    return filter::assemble_limits(limits::Party::Program);
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )))]
    return Vec::new();
}

/// Gives up all system calls but those that serve one client and those of `needs`. One that is made nevertheless is
/// logged as fatal, and ends the process with status 1. The log has been opened, and is never connected again. From here on
/// the process also has a limit of its time on the processor, [`PROCESSOR_LIMIT`].
///
/// A second time does not work: what puts a filter in force is not among the calls.
pub fn confine(needs: &[Need<'_>]) -> Result<(), Error> {
    prctl::set_no_new_privs().map_err(at("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    processor::limit(PROCESSOR_LIMIT).map_err(at("setrlimit(RLIMIT_CPU)"))?;
    for need in needs {
        if let Need::Unlink(directory) = need {
            wall_in(*directory);
        }
    }
    filter_system_calls(needs).map_err(at("prctl(PR_SET_SECCOMP)"))
}

/// Has the kernel keep the process to this directory, where the filter sees no more than a pointer to a path. A second
/// wall: the session goes on where it does not stand, because the kernel has no Landlock, or a launcher hides it or has used
/// up the number of walls.
fn wall_in(directory: BorrowedFd<'_>) {
    match landlock::forbid_changes_but_removal(directory) {
        Ok(true) => {}
        Ok(false) => log::debug!(1, "no Landlock"),
        Err(errno) => log::debug!(1, "Landlock: {}", log::errno_text(errno)),
    }
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
fn filter_system_calls(needs: &[Need<'_>]) -> nix::Result<()> {
    log::stay_with_connection();
    seccomp::report_violations(log::raw_fatal())?;
    seccomp::install(&filter::assemble(&filter::rules(needs)))
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
fn filter_resident() -> nix::Result<()> {
    seccomp::install(&filter::assemble_limits(limits::Party::Resident))
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
fn filter_resolver() -> nix::Result<()> {
    seccomp::install(&filter::assemble_limits(limits::Party::Resolver))
}

/// The warning comes once, from [`confine`].
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
fn filter_resident() -> nix::Result<()> {
    Ok(())
}

/// As for a resident process.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
fn filter_resolver() -> nix::Result<()> {
    Ok(())
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
fn filter_system_calls(_: &[Need<'_>]) -> nix::Result<()> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        log::warning!(
            "no filter of system calls on this architecture: the session is not confined"
        );
    });
    Ok(())
}
