//! Which system calls a confined process may make, and who needs them.
//!
//! Found out with strace on what this program does once confined, built with and without debug assertions (glibc 2.36,
//! Rust 1.95): a log line, 100 MiB in memory, a read that an alarm ends, a sleep that is stopped and continued, a panic,
//! the exit. Nobody was seen to need futex (one thread: no lock is ever contended), poll, mprotect or getrandom.

use libc::c_long;

/// Whose call it is.
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

/// What an argument, counted from 0, has to be. Of a number the kernel looks at the lower 32 bits, and so do we.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Is(u32, Value),
    /// A pointer that points nowhere.
    Null(u32),
    /// Flags without any of these.
    Without(u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    /// The process itself.
    OwnPid,
    /// The descriptor or child that the need holds.
    Held,
}

/// One call, for one party. A call that stands here twice is allowed when either row allows it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub call: c_long,
    pub who: Who,
    /// All of them have to hold.
    pub checks: &'static [Check],
}

const fn row(call: c_long, who: Who, checks: &'static [Check]) -> Row {
    Row { call, who, checks }
}

use Check::{Is, Null, Without};
use Value::{Held, Number, OwnPid};
use Who::{Connect, Everybody, File, Unlink, Wait};

/// PROT_EXEC, SIGABRT and F_GETFD as the numbers that arguments are compared with.
const PROT_EXEC: u32 = 4;
const SIGABRT: u32 = 6;
#[cfg(debug_assertions)]
const F_GETFD: u32 = 1;

/// In the order of a session. Numbers differ between architectures, so [`super::filter`] sorts.
pub const TABLE: &[Row] = &[
    // The client and cleanup, on descriptors that are open already, and the log.
    row(libc::SYS_read, Everybody, &[]),
    row(libc::SYS_recvfrom, Everybody, &[]), // MSG_PEEK for the first byte, MSG_DONTWAIT in the drain
    row(libc::SYS_write, Everybody, &[]),
    row(libc::SYS_sendto, Everybody, &[Null(4)]), // send(2); with an address it could reach anybody
    row(libc::SYS_shutdown, Everybody, &[]),      // the drain
    row(libc::SYS_close, Everybody, &[]),
    #[cfg(debug_assertions)]
    row(libc::SYS_fcntl, Everybody, &[Is(1, Number(F_GETFD))]), // Rust's OwnedFd asks before it closes
    // Deadlines. A stopped and continued process comes back from its sleep through restart_syscall.
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_alarm, Everybody, &[]),
    row(libc::SYS_setitimer, Everybody, &[]), // alarm(3) on aarch64, and in musl
    row(libc::SYS_rt_sigreturn, Everybody, &[]),
    row(libc::SYS_restart_syscall, Everybody, &[]),
    row(libc::SYS_nanosleep, Everybody, &[]), // the error delay: which of the two depends on the C library
    row(libc::SYS_clock_nanosleep, Everybody, &[]),
    // A message of 100 MiB in memory.
    row(libc::SYS_brk, Everybody, &[]),
    row(libc::SYS_mmap, Everybody, &[Without(2, PROT_EXEC)]),
    row(libc::SYS_mremap, Everybody, &[]),
    row(libc::SYS_munmap, Everybody, &[]),
    row(libc::SYS_madvise, Everybody, &[]), // malloc under GLIBC_TUNABLES=glibc.malloc.hugetlb=1
    // The time and process of a log line. The clocks come here where the vDSO cannot read the clock source (Xen, HPET).
    row(libc::SYS_clock_gettime, Everybody, &[]),
    row(libc::SYS_gettimeofday, Everybody, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_time, Everybody, &[]),
    row(libc::SYS_getpid, Everybody, &[]),
    // The end: sigaltstack and munmap take down what Rust's start-up code put up.
    row(libc::SYS_sigaltstack, Everybody, &[]),
    row(libc::SYS_exit_group, Everybody, &[]),
    row(libc::SYS_exit, Everybody, &[]), // musl's _exit falls back to it
    // abort(3) after a panic.
    row(libc::SYS_rt_sigprocmask, Everybody, &[]),
    row(libc::SYS_gettid, Everybody, &[]),
    row(
        libc::SYS_tgkill,
        Everybody,
        &[Is(0, OwnPid), Is(2, Number(SIGABRT))],
    ),
    // A queue file, from its first record to the commit.
    row(libc::SYS_lseek, File, &[Is(0, Held)]),
    row(libc::SYS_pwrite64, File, &[Is(0, Held)]), // the size record, when all is known
    row(libc::SYS_ftruncate, File, &[Is(0, Held)]),
    row(libc::SYS_fchmod, File, &[Is(0, Held)]), // the commit
    row(libc::SYS_fsync, File, &[Is(0, Held)]),
    // An absolute path passes as well: the filter sees a pointer. It reaches what mail_owner may remove.
    row(libc::SYS_unlinkat, Unlink, &[Is(0, Held)]),
    row(libc::SYS_connect, Connect, &[Is(0, Held)]),
    row(libc::SYS_wait4, Wait, &[Is(0, Held)]),
];
