//! The system calls that a confined process may make, and the need for each.
//!
//! `tests/sandbox.rs` reads this table too: it traces the release build in each queue method, under inetd and under
//! master(8), and checks that a session makes each call whose row says so ([`Why::Seen`]). No session was seen to need
//! futex (one thread: no lock is contended), mprotect or getrandom. The filter is made in `jail::filter`.

use libc::c_long;

/// The need that a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Any process that serves a client.
    Everybody,
    /// [`super::Need::File`]
    File,
    /// [`super::Need::Unlink`]
    Unlink,
    /// [`super::Need::Connect`]
    Connect,
    /// [`super::Need::Wait`]
    Wait,
}

/// The reason for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The release build makes each of the calls, on x86_64 with the GNU C library.
    Seen,
    /// Another C library (musl) or another architecture makes this call instead of one of the rows around it.
    OtherLibrary,
    /// The C library asks the kernel if the vDSO cannot read the clock (Xen, HPET).
    NoVdso,
    /// malloc asks for huge pages with GLIBC_TUNABLES=glibc.malloc.hugetlb=1, if the kernel has them on request.
    HugePages,
    /// The standard library's debug assertions. A release build has no such row.
    DebugAssertions,
}

impl Why {
    /// Whether this build needs the row.
    pub fn holds_here(self) -> bool {
        cfg!(debug_assertions) || self != DebugAssertions
    }
}

/// The condition on an argument, counted from 0. Of a number the kernel and the filter look at the lower 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The number of the process itself.
    OwnPid(u32),
    /// The descriptor or child that the need holds.
    Held(u32),
    /// One of these numbers.
    Among(u32, &'static [u32]),
    /// None of these numbers.
    Except(u32, &'static [u32]),
    /// A null pointer.
    Null(u32),
    /// Flags without any of these.
    Without(u32, u32),
    /// Flags with at least one of these.
    With(u32, u32),
    /// A number above zero: as a process id, one process and no group.
    Positive(u32),
    /// The length of the need's address.
    Length(u32),
}

/// Calls for one need. A call in two rows is allowed if either row allows it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub who: Who,
    pub why: Why,
    /// All checks must hold.
    pub checks: &'static [Check],
    pub calls: &'static [c_long],
}

/// System calls by their names in the libc package.
macro_rules! calls {
    ($($call:ident)*) => { &[$(libc::$call),*] };
}

/// A row whose calls the release build makes.
const fn seen(who: Who, checks: &'static [Check], calls: &'static [c_long]) -> Row {
    kept(Why::Seen, who, checks, calls)
}

const fn kept(why: Why, who: Who, checks: &'static [Check], calls: &'static [c_long]) -> Row {
    Row {
        who,
        why,
        checks,
        calls,
    }
}

use Check::{Among, Held, Length, Null, OwnPid, Without};
use Who::{Connect, Everybody, File, Unlink, Wait};
use Why::{DebugAssertions, HugePages, NoVdso, OtherLibrary};

/// PROT_EXEC, signals and F_GETFD as the numbers that arguments are compared with.
const PROT_EXEC: u32 = 4;
const SIGHUP: u32 = 1;
const SIGINT: u32 = 2;
const SIGABRT: u32 = 6;
const SIGTERM: u32 = 15;
const SIGXCPU: u32 = 24;
const F_GETFD: u32 = 1;

/// The descriptor for memory without a file: -1.
const NO_FILE: u32 = u32::MAX;

/// The mode of a complete queue file, and the flags of unlinkat(2) that do not remove a directory.
const COMPLETE: u32 = 0o700;
const NO_DIRECTORY: u32 = 0;

/// In the order of a session. The numbers differ between architectures, so [`super::filter`] sorts them.
pub const TABLE: &[Row] = &[
    // The client, cleanup and the log, on open descriptors. recvfrom is for the first byte (MSG_PEEK) and, as shutdown,
    // for the drain.
    seen(
        Everybody,
        &[],
        calls![SYS_read SYS_recvfrom SYS_write SYS_shutdown SYS_close],
    ),
    // send(2). With an address it could reach any socket.
    seen(Everybody, &[Null(4)], calls![SYS_sendto]),
    // Waits for a log that takes no lines.
    #[cfg(target_arch = "x86_64")]
    seen(Everybody, &[], calls![SYS_poll]),
    kept(OtherLibrary, Everybody, &[], calls![SYS_ppoll]),
    // OwnedFd checks the descriptor before it closes it.
    kept(
        DebugAssertions,
        Everybody,
        &[Among(1, &[F_GETFD])],
        calls![SYS_fcntl],
    ),
    // Deadlines and the error delay. A process that was stopped in its sleep continues through restart_syscall.
    #[cfg(target_arch = "x86_64")]
    seen(Everybody, &[], calls![SYS_alarm]),
    kept(
        OtherLibrary,
        Everybody,
        &[],
        calls![SYS_setitimer SYS_nanosleep],
    ),
    seen(
        Everybody,
        &[],
        calls![SYS_rt_sigreturn SYS_restart_syscall SYS_clock_nanosleep],
    ),
    // Memory for a message of 100 MiB, and for several pieces of a line. No file can be mapped.
    seen(
        Everybody,
        &[Without(2, PROT_EXEC), Among(4, &[NO_FILE])],
        calls![SYS_mmap],
    ),
    seen(Everybody, &[], calls![SYS_brk SYS_mremap SYS_munmap]),
    kept(HugePages, Everybody, &[], calls![SYS_madvise]),
    // The time of a log line.
    kept(NoVdso, Everybody, &[], calls![SYS_clock_gettime]),
    seen(Everybody, &[], calls![SYS_exit_group]),
    // abort(3) after a panic, and the end of a process that has used up its processor time.
    seen(
        Everybody,
        &[],
        calls![SYS_rt_sigprocmask SYS_getpid SYS_gettid],
    ),
    seen(
        Everybody,
        &[OwnPid(0), Among(2, &[SIGABRT, SIGXCPU])],
        calls![SYS_tgkill],
    ),
    #[cfg(target_env = "musl")]
    kept(
        OtherLibrary,
        Everybody,
        &[OwnPid(0), Among(1, &[SIGABRT])],
        calls![SYS_tkill],
    ),
    // A queue file, from its first record to the commit: the size record, which is written last, and the mode.
    seen(File, &[Held(0)], calls![SYS_pwrite64 SYS_fsync]),
    seen(File, &[Held(0), Among(1, &[COMPLETE])], calls![SYS_fchmod]),
    // The name of a queue file is relative to its directory. An absolute path passes as well, because the filter sees a
    // pointer: without Landlock it reaches all files that mail_owner may remove.
    seen(
        Unlink,
        &[Held(0), Among(2, &[NO_DIRECTORY])],
        calls![SYS_unlinkat],
    ),
    seen(Unlink, &[Held(0)], calls![SYS_fsync]),
    // The signal handler removes the file, and then ends the process by the same signal.
    seen(
        Unlink,
        &[OwnPid(0), Among(2, &[SIGTERM, SIGHUP, SIGINT])],
        calls![SYS_tgkill],
    ),
    #[cfg(target_env = "musl")]
    kept(
        OtherLibrary,
        Unlink,
        &[OwnPid(0), Among(1, &[SIGTERM, SIGHUP, SIGINT, SIGXCPU])],
        calls![SYS_tkill],
    ),
    // The filter cannot see the path, but its length: most other sockets that mail_owner can reach have longer paths
    // than public/qmgr.
    seen(Connect, &[Held(0), Length(2)], calls![SYS_connect]),
    seen(Wait, &[Held(0)], calls![SYS_wait4]),
];
