//! Gives rights up: groups, root directory, user, and then the system calls.
//!
//! Each step is one call, whose error has its name. Follows credentials(7), chroot(2) and seccomp(2); the order and the
//! error texts are Postfix's. `service` decides when and to which user; a room that acts after confinement names its
//! rights with a [`Need`].
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

/// The processor time of a confined process, so that a process under an attacker's control ends. 100 MiB take a quarter
/// of a second, and 200 seconds if each byte comes alone. Without message_size_limit 400 GiB would fit, which must fit
/// into memory.
pub const PROCESSOR_LIMIT: Duration = Duration::from_secs(1000);

/// The warning for a launcher that sets the user and not the groups.
pub const GROUP_OF_ROOT: &str = "the process was started as an ordinary user in group 0: \
    start it as root, or with the groups of that user alone";

/// A right after confinement that not every serving process needs.
#[derive(Debug, Clone, Copy)]
pub enum Need<'fd> {
    /// To write this file to its end, to write over its beginning, to set its mode, and to sync it.
    File(BorrowedFd<'fd>),
    /// To remove a file of this directory, and to sync the directory.
    Unlink(BorrowedFd<'fd>),
    /// To connect this socket to an address of this length.
    Connect(BorrowedFd<'fd>, u32),
    /// To wait for this child.
    Wait(Pid),
}

/// A right that could not be given up. The process must not serve; the machine or its administrator is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// This call failed. For a filter: the kernel has none, or the launcher forbids it.
    Call(String, Errno),
    /// All calls succeeded, and the process can become root again: the owner is root, or secure bits keep capabilities.
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

/// The means of the kernel to confine a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    pub no_new_privs: bool,
    pub seccomp: bool,
    /// The version of Landlock. Without it only the second of two walls is missing.
    pub landlock: Option<u32>,
}

/// The walls of this machine.
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

/// Becomes `owner` permanently, in the root directory `root` if one is given. The effective user must be root, and the
/// files outside of a chroot (time zone, log socket) must be open.
pub fn drop_privileges(owner: &Owner, root: Option<&Path>) -> Result<(), Error> {
    setgid(owner.gid).map_err(|errno| Error::Call(format!("setgid({})", owner.gid), errno))?;
    setgroups(&owner.groups).map_err(at("initgroups"))?;
    if let Some(root) = root {
        chroot(root).map_err(|errno| Error::Call(format!("chroot({})", root.display()), errno))?;
        chdir("/").map_err(at("chdir(/)"))?;
    }
    setuid(owner.uid).map_err(|errno| Error::Call(format!("setuid({})", owner.uid), errno))?;
    // With a real or saved id of root, or with the capability, one of these succeeds.
    if setuid(Uid::from_raw(0)).is_ok() || setgid(Gid::from_raw(0)).is_ok() {
        return Err(Error::StillRoot(owner.uid));
    }
    drop_capabilities()?;
    // The change of user has reset it to fs.suid_dumpable.
    prctl::set_dumpable(false).map_err(at("prctl(PR_SET_DUMPABLE)"))
}

/// Gives up the capabilities that a launcher may have left to an ordinary user: ambient ones survive a change of user
/// by the launcher, and inheritable ones any.
pub fn drop_capabilities() -> Result<(), Error> {
    capability::drop_all().map_err(at("capset"))
}

/// Gives up, for a process and its children, the system calls that none of them needs: those that start programs,
/// change users, trace or kill others, mount, load. A child calls [`confine`] or [`confine_resolver`] after this; both
/// filters then apply.
pub fn confine_resident() -> Result<(), Error> {
    prctl::set_no_new_privs().map_err(at("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    filter_resident().map_err(at("prctl(PR_SET_SECCOMP)"))
}

/// Gives up, for a process that only looks a name up, the calls that no resolver needs: the same, and all changes of
/// files. With Landlock there is a second wall against changes.
pub fn confine_resolver() -> Result<(), Error> {
    prctl::set_no_new_privs().map_err(at("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    landlock::forbid_changes().map_err(at("landlock_restrict_self"))?;
    filter_resolver().map_err(at("prctl(PR_SET_SECCOMP)"))
}

/// The filter for a program that looks a client up: it has the rights of its user, and cannot act on other processes of
/// that user. Empty if this architecture has no filter.
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

/// Gives up all system calls except those that serve one client and those of `needs`. A forbidden call is logged as
/// fatal, and ends the process with status 1. The log must be open, because it is never connected again. The processor
/// time is limited to [`PROCESSOR_LIMIT`].
///
/// Can be called once: installing a filter is not allowed afterwards.
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

/// Makes the kernel keep the process in this directory, because the filter sees only a pointer to a path. A second
/// wall: the session continues without it if the kernel has no Landlock, or if a launcher forbids it or has used up the
/// number of walls.
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

/// The same as for a resident process.
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
