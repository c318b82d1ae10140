//! Which system calls a confined process may make, and who needs them.
//!
//! Found out with strace on what this program does once confined, built with and without debug assertions (glibc 2.36,
//! Rust 1.95): a log line, 100 MiB in memory, a read that an alarm ends, a sleep that is stopped and continued, a panic,
//! the exit. Nobody was seen to need futex (one thread: no lock is ever contended), mprotect or getrandom.

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
    /// The process that master(8) keeps, and what its children do before they are confined: [`super::confine_resident`]
    Resident,
}

/// What an argument, counted from 0, has to be. Of a number the kernel looks at the lower 32 bits, and so do we.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Is(u32, Value),
    /// A pointer that points nowhere.
    Null(u32),
    /// Flags without any of these.
    Without(u32, u32),
    /// A number above zero: of process ids, one process and no group.
    Positive(u32),
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

use Check::{Is, Null, Positive, Without};
use Value::{Held, Number, OwnPid};
use Who::{Connect, Everybody, File, Resident, Unlink, Wait};

/// PROT_EXEC, signals and F_GETFD as the numbers that arguments are compared with.
const PROT_EXEC: u32 = 4;
const SIGHUP: u32 = 1;
const SIGINT: u32 = 2;
const SIGABRT: u32 = 6;
const SIGBUS: u32 = 7;
const SIGKILL: u32 = 9;
const SIGSEGV: u32 = 11;
const SIGTERM: u32 = 15;
const SIGXCPU: u32 = 24;
#[cfg(debug_assertions)]
const F_GETFD: u32 = 1;

/// CLONE_NEW*: what makes a child the root of a world of its own.
const NAMESPACES: u32 = 0x7e02_0000;

/// Constants of prctl(2), by number where the C libraries' headers differ in type.
const PR_SET_PDEATHSIG: u32 = 1;
const PR_SET_DUMPABLE: u32 = 4;
const PR_SET_NAME: u32 = 15;
const PR_SET_SECCOMP: u32 = 22;
const PR_SET_NO_NEW_PRIVS: u32 = 38;

/// Requests of ioctl(2): how much can be read, and whether calls wait. Others are for terminals and devices.
const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;

/// In the order of a session. Numbers differ between architectures, so [`super::filter`] sorts.
pub const TABLE: &[Row] = &[
    // The client and cleanup, on descriptors that are open already, and the log.
    row(libc::SYS_read, Everybody, &[]),
    row(libc::SYS_recvfrom, Everybody, &[]), // MSG_PEEK for the first byte, MSG_DONTWAIT in the drain
    row(libc::SYS_write, Everybody, &[]),
    row(libc::SYS_sendto, Everybody, &[Null(4)]), // send(2); with an address it could reach anybody
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_poll, Everybody, &[]), // a log that takes no line: whether it does again
    row(libc::SYS_ppoll, Everybody, &[]),
    row(libc::SYS_shutdown, Everybody, &[]), // the drain
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
    // A crash: the handler that Rust's start-up code has set puts the default back, and lets it happen again.
    row(libc::SYS_rt_sigaction, Everybody, &[Is(0, Number(SIGSEGV))]),
    row(libc::SYS_rt_sigaction, Everybody, &[Is(0, Number(SIGBUS))]),
    // A queue file, from its first record to the commit.
    row(libc::SYS_lseek, File, &[Is(0, Held)]),
    row(libc::SYS_pwrite64, File, &[Is(0, Held)]), // the size record, when all is known
    row(libc::SYS_ftruncate, File, &[Is(0, Held)]),
    row(libc::SYS_fchmod, File, &[Is(0, Held)]), // the commit
    row(libc::SYS_fsync, File, &[Is(0, Held)]),
    // An absolute path passes as well: the filter sees a pointer. It reaches what mail_owner may remove.
    row(libc::SYS_unlinkat, Unlink, &[Is(0, Held)]),
    row(libc::SYS_fsync, Unlink, &[Is(0, Held)]), // the name of a queue file is in its directory
    // The handler of a signal removes the file, and then has the process die of that signal.
    row(
        libc::SYS_tgkill,
        Unlink,
        &[Is(0, OwnPid), Is(2, Number(SIGTERM))],
    ),
    row(
        libc::SYS_tgkill,
        Unlink,
        &[Is(0, OwnPid), Is(2, Number(SIGHUP))],
    ),
    row(
        libc::SYS_tgkill,
        Unlink,
        &[Is(0, OwnPid), Is(2, Number(SIGINT))],
    ),
    row(
        libc::SYS_tgkill,
        Unlink,
        &[Is(0, OwnPid), Is(2, Number(SIGXCPU))],
    ),
    row(libc::SYS_connect, Connect, &[Is(0, Held)]),
    row(libc::SYS_wait4, Wait, &[Is(0, Held)]),
    // The resident process: lock, sockets, status channel. Whatever row there is above for one descriptor is for any
    // descriptor here, since the queue is opened later, in the child.
    row(libc::SYS_flock, Resident, &[]),
    row(libc::SYS_accept4, Resident, &[]),
    row(libc::SYS_setsockopt, Resident, &[]),
    // A child, and its end. The kernel lets mail_owner signal its own processes only; of these the filter spares groups.
    // Not clone3, whose flags are out of its sight: the C library then takes clone.
    row(libc::SYS_clone, Resident, &[Without(0, NAMESPACES)]),
    row(libc::SYS_wait4, Resident, &[]),
    row(
        libc::SYS_kill,
        Resident,
        &[Positive(0), Is(1, Number(SIGKILL))],
    ),
    row(
        libc::SYS_kill,
        Resident,
        &[Positive(0), Is(1, Number(SIGTERM))],
    ),
    row(
        libc::SYS_tgkill,
        Resident,
        &[Positive(0), Is(2, Number(SIGABRT))],
    ),
    row(
        libc::SYS_tgkill,
        Resident,
        &[Positive(0), Is(2, Number(SIGTERM))],
    ),
    row(
        libc::SYS_tgkill,
        Resident,
        &[Positive(0), Is(2, Number(SIGHUP))],
    ),
    row(
        libc::SYS_tgkill,
        Resident,
        &[Positive(0), Is(2, Number(SIGINT))],
    ),
    row(
        libc::SYS_tgkill,
        Resident,
        &[Positive(0), Is(2, Number(SIGXCPU))],
    ),
    row(libc::SYS_getppid, Resident, &[]),
    row(
        libc::SYS_prctl,
        Resident,
        &[Is(0, Number(PR_SET_PDEATHSIG))],
    ),
    row(libc::SYS_prctl, Resident, &[Is(0, Number(PR_SET_DUMPABLE))]),
    row(libc::SYS_prctl, Resident, &[Is(0, Number(PR_SET_NAME))]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_dup2, Resident, &[]),
    row(libc::SYS_dup3, Resident, &[]),
    row(libc::SYS_fcntl, Resident, &[]),
    // The child's own filter.
    row(
        libc::SYS_prctl,
        Resident,
        &[Is(0, Number(PR_SET_NO_NEW_PRIVS))],
    ),
    row(libc::SYS_prctl, Resident, &[Is(0, Number(PR_SET_SECCOMP))]),
    row(libc::SYS_rt_sigaction, Resident, &[]),
    // Who the client is, and the queue's and the log's sockets.
    row(libc::SYS_getpeername, Resident, &[]),
    row(libc::SYS_getsockname, Resident, &[]),
    row(libc::SYS_getsockopt, Resident, &[]),
    row(libc::SYS_socket, Resident, &[]),
    row(libc::SYS_socketpair, Resident, &[]),
    row(libc::SYS_bind, Resident, &[]),
    row(libc::SYS_connect, Resident, &[]),
    row(libc::SYS_sendto, Resident, &[]),
    row(libc::SYS_sendmsg, Resident, &[]),
    row(libc::SYS_sendmmsg, Resident, &[]),
    row(libc::SYS_recvmsg, Resident, &[]),
    row(libc::SYS_recvmmsg, Resident, &[]),
    // Files: lists, resolver files, a queue file. Whose they are is the kernel's to check.
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_open, Resident, &[]),
    row(libc::SYS_openat, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_stat, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_lstat, Resident, &[]),
    row(libc::SYS_newfstatat, Resident, &[]),
    row(libc::SYS_fstat, Resident, &[]),
    row(libc::SYS_statx, Resident, &[]),
    row(libc::SYS_fstatfs, Resident, &[]),
    row(libc::SYS_statfs, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_access, Resident, &[]),
    row(libc::SYS_faccessat, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_readlink, Resident, &[]),
    row(libc::SYS_readlinkat, Resident, &[]),
    row(libc::SYS_getdents64, Resident, &[]),
    row(libc::SYS_getcwd, Resident, &[]),
    row(libc::SYS_lseek, Resident, &[]),
    row(libc::SYS_pread64, Resident, &[]),
    row(libc::SYS_pwrite64, Resident, &[]),
    row(libc::SYS_readv, Resident, &[]),
    row(libc::SYS_writev, Resident, &[]),
    row(libc::SYS_ftruncate, Resident, &[]),
    row(libc::SYS_fchmod, Resident, &[]),
    row(libc::SYS_fsync, Resident, &[]),
    row(libc::SYS_fdatasync, Resident, &[]),
    row(libc::SYS_utimensat, Resident, &[]),
    row(libc::SYS_umask, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_rename, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_renameat, Resident, &[]),
    row(libc::SYS_renameat2, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_unlink, Resident, &[]),
    row(libc::SYS_unlinkat, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_mkdir, Resident, &[]),
    row(libc::SYS_mkdirat, Resident, &[]),
    // The C library's resolver, and the libraries that name services load: code from files, threads.
    row(libc::SYS_mmap, Resident, &[]),
    row(libc::SYS_mprotect, Resident, &[]),
    row(libc::SYS_futex, Resident, &[]),
    row(libc::SYS_set_robust_list, Resident, &[]),
    row(libc::SYS_rseq, Resident, &[]),
    row(libc::SYS_getrandom, Resident, &[]),
    row(libc::SYS_ioctl, Resident, &[Is(1, Number(FIONREAD))]),
    row(libc::SYS_ioctl, Resident, &[Is(1, Number(FIONBIO))]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_pipe, Resident, &[]),
    row(libc::SYS_pipe2, Resident, &[]),
    row(libc::SYS_eventfd2, Resident, &[]),
    row(libc::SYS_epoll_create1, Resident, &[]),
    row(libc::SYS_epoll_ctl, Resident, &[]),
    row(libc::SYS_epoll_pwait, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_epoll_wait, Resident, &[]),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_select, Resident, &[]),
    row(libc::SYS_pselect6, Resident, &[]),
    row(libc::SYS_getuid, Resident, &[]),
    row(libc::SYS_geteuid, Resident, &[]),
    row(libc::SYS_getgid, Resident, &[]),
    row(libc::SYS_getegid, Resident, &[]),
    // Limits of the process itself, to be read.
    row(libc::SYS_prlimit64, Resident, &[Is(0, Number(0)), Null(2)]),
    row(libc::SYS_uname, Resident, &[]),
    row(libc::SYS_sysinfo, Resident, &[]),
    row(libc::SYS_sched_yield, Resident, &[]),
    row(libc::SYS_sched_getaffinity, Resident, &[]),
    row(libc::SYS_clock_getres, Resident, &[]),
];
