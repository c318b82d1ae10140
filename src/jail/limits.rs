//! The system calls that are forbidden where unknown code runs: in the child that looks a name up, in the resident
//! process of master(8) and its children, and in a program that reads a table.
//!
//! Follows nsswitch.conf(5) and seccomp(2). A confined session has `jail::table` instead; filters are made in
//! `jail::filter`.

use libc::c_long;

use super::table::Check::{self, Among, Except, OwnPid, Positive, With, Without};

/// A process to which calls are forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The child that looks a name up.
    Resolver,
    /// The process that master(8) keeps, and its children before they are confined.
    Resident,
    /// A program that looks a client up in a table.
    Program,
}

use Party::{Program, Resident, Resolver};

/// How a forbidden call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// EPERM
    NotPermitted,
    /// ENOSYS
    NoSuchCall,
}

/// Calls that are forbidden to these parties. No call has two limits for one party.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub parties: &'static [Party],
    pub failure: Failure,
    /// The call is allowed if all of them hold and the list is not empty.
    pub unless: &'static [Check],
    pub calls: &'static [c_long],
}

/// The first call number that was free when this list was written (setxattrat, Linux 6.13).
pub const FIRST_UNKNOWN: u32 = 463;

macro_rules! calls {
    ($($call:ident)*) => { &[$(libc::$call),*] };
}

/// Calls that are always forbidden.
const fn never(parties: &'static [Party], calls: &'static [c_long]) -> Limit {
    unless(&[], parties, calls)
}

const fn unless(
    unless: &'static [Check],
    parties: &'static [Party],
    calls: &'static [c_long],
) -> Limit {
    Limit {
        parties,
        failure: Failure::NotPermitted,
        unless,
        calls,
    }
}

const fn hidden(parties: &'static [Party], calls: &'static [c_long]) -> Limit {
    Limit {
        parties,
        failure: Failure::NoSuchCall,
        unless: &[],
        calls,
    }
}

const ALL: &[Party] = &[Resolver, Resident, Program];
const BOTH: &[Party] = &[Resolver, Resident];

const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") {
    320
} else {
    294
};
const FCHMODAT2: c_long = 452;

/// CLONE_NEW*: new namespaces.
const NAMESPACES: u32 = 0x7e02_0000;
const CLONE_THREAD: u32 = 0x1_0000;

const SIGHUP: u32 = 1;
const SIGINT: u32 = 2;
const SIGABRT: u32 = 6;
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;
const SIGXCPU: u32 = 24;

/// Families of socket(2): UNIX-domain, Internet, and the kernel's list of interfaces.
const FAMILIES: &[u32] = &[1, 2, 10, 16];

/// Requests of fcntl(2) that make the kernel signal another process: F_SETOWN, F_SETSIG, F_SETOWN_EX.
const OWNERS: &[u32] = &[8, 10, 15];

/// Requests of ioctl(2): those of OWNERS (FIOSETOWN, SIOCSPGRP), those that type on another user's terminal (TIOCSTI,
/// TIOCLINUX), and those that change it (TIOCCONS, TIOCSETD).
const TERMINALS: &[u32] = &[0x8901, 0x8902, 0x5412, 0x541c, 0x541d, 0x5423];

/// Options of prctl(2) that open the process to others (PR_SET_DUMPABLE, PR_SET_PTRACER), change its memory map
/// (PR_SET_MM), or make it inherit orphans (PR_SET_CHILD_SUBREAPER).
const OPENING: &[u32] = &[4, 0x5961_6d61, 35, 36];

/// The same, and PR_SET_PDEATHSIG, which ends the process with its parent.
const OPENING_OR_SURVIVING: &[u32] = &[4, 0x5961_6d61, 35, 36, 1];

/// O_WRONLY, O_RDWR, O_CREAT and O_TRUNC: a file is changed or made.
const WRITING: u32 = 0o1 | 0o2 | 0o100 | 0o1000;

/// A call that is not listed is allowed. The C library loads libraries of name services: they start threads, map files
/// and talk to daemons, and each release makes other calls; with a list of allowed calls a missing call would be a name
/// that is never found, on some machine. Nine ways to a name in Debian 12 were tried with their answers (files, dns,
/// resolve, myhostname, mdns4_minimal, sss, wins, and dns through nscd and unscd): none makes a call of this list. The
/// resident process reads no byte from clients, so that a stricter list would gain little for it.
///
/// A forbidden call fails with EPERM and is not logged: a library continues without it. A call whose flags a filter
/// cannot see fails with ENOSYS, and libraries use the older call; so do calls newer than this list.
pub const LIMITS: &[Limit] = &[
    // Other programs.
    never(BOTH, calls![SYS_execve SYS_execveat]),
    // Other processes: their memory, descriptors, end and priority. The kernel would allow it for processes of
    // mail_owner.
    never(
        ALL,
        calls![
            SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise
            SYS_process_mrelease SYS_kcmp SYS_pidfd_open SYS_pidfd_getfd SYS_pidfd_send_signal
            SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_tkill SYS_setpriority SYS_ioprio_set
            SYS_sched_setscheduler SYS_sched_setparam SYS_sched_setattr SYS_sched_setaffinity
            SYS_migrate_pages SYS_move_pages
        ],
    ),
    never(&[Resolver, Program], calls![SYS_kill]),
    // A resident process ends a child that does not end in time. The filter allows signals to one process, and not to
    // groups.
    unless(
        &[Positive(0), Among(1, &[SIGKILL, SIGTERM])],
        &[Resident],
        calls![SYS_kill],
    ),
    unless(&[OwnPid(0)], &[Resolver], calls![SYS_tgkill]),
    // Its number is not known before it is started. abort(3) works without this call.
    never(&[Program], calls![SYS_tgkill]),
    unless(
        &[
            Positive(0),
            Among(2, &[SIGABRT, SIGTERM, SIGHUP, SIGINT, SIGXCPU]),
        ],
        &[Resident],
        calls![SYS_tgkill],
    ),
    unless(&[Except(1, OWNERS)], ALL, calls![SYS_fcntl]),
    unless(&[Except(1, TERMINALS)], ALL, calls![SYS_ioctl]),
    unless(&[Among(0, &[0])], ALL, calls![SYS_prlimit64]),
    // The state of the process that others see.
    unless(
        &[Except(0, OPENING)],
        &[Resident, Program],
        calls![SYS_prctl],
    ),
    unless(
        &[Except(0, OPENING_OR_SURVIVING)],
        &[Resolver],
        calls![SYS_prctl],
    ),
    // A library of the resolver may start a thread. A process would outlive the lookup.
    unless(
        &[Without(0, NAMESPACES), With(0, CLONE_THREAD)],
        &[Resolver],
        calls![SYS_clone],
    ),
    #[cfg(target_arch = "x86_64")]
    never(&[Resolver], calls![SYS_fork SYS_vfork]),
    unless(
        &[Without(0, NAMESPACES)],
        &[Resident, Program],
        calls![SYS_clone],
    ),
    hidden(ALL, calls![SYS_clone3]),
    // Users and namespaces.
    never(
        ALL,
        calls![
            SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid
            SYS_setfsgid SYS_setgroups SYS_capset SYS_unshare SYS_setns SYS_chroot SYS_pivot_root
            SYS_mount SYS_umount2 SYS_move_mount SYS_open_tree SYS_fsopen SYS_fsconfig SYS_fsmount
            SYS_fspick SYS_mount_setattr
        ],
    ),
    // The kernel: its code, clocks and names, and parts that few programs use.
    never(
        ALL,
        calls![
            SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load
            SYS_reboot SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup
            SYS_io_uring_enter SYS_io_uring_register SYS_seccomp SYS_personality SYS_swapon
            SYS_swapoff SYS_quotactl SYS_quotactl_fd SYS_acct SYS_settimeofday SYS_clock_settime
            SYS_adjtimex SYS_clock_adjtime SYS_sethostname SYS_setdomainname SYS_syslog
            SYS_vhangup SYS_nfsservctl SYS_lookup_dcookie SYS_open_by_handle_at SYS_fanotify_init SYS_fanotify_mark
        ],
    ),
    // kexec_file_load and fchmodat2, which the libc package does not have for every architecture.
    never(ALL, &[KEXEC_FILE_LOAD]),
    never(&[Resolver], &[FCHMODAT2]),
    // Kerberos keeps tickets in keyrings, for a table on an LDAP server.
    never(BOTH, calls![SYS_add_key SYS_request_key SYS_keyctl]),
    #[cfg(target_arch = "x86_64")]
    never(ALL, calls![SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib]),
    unless(&[Among(0, FAMILIES)], ALL, calls![SYS_socket]),
    // A listening port could pass for a service of this machine.
    never(ALL, calls![SYS_listen]),
    never(&[Resolver], calls![SYS_accept4 SYS_accept]),
    // Files of special kinds and with other names, and files passed to other processes.
    never(
        BOTH,
        calls![SYS_mknodat SYS_linkat SYS_symlinkat SYS_fchownat SYS_fchown],
    ),
    #[cfg(target_arch = "x86_64")]
    never(
        BOTH,
        calls![SYS_mknod SYS_link SYS_symlink SYS_chown SYS_lchown],
    ),
    // A lookup changes no file. Landlock forbids it as well, if the kernel has it, except for modes, attributes and
    // times.
    unless(&[Without(2, WRITING)], &[Resolver], calls![SYS_openat]),
    hidden(&[Resolver], calls![SYS_openat2]),
    never(
        &[Resolver],
        calls![
            SYS_truncate SYS_unlinkat SYS_renameat SYS_renameat2 SYS_mkdirat SYS_fchmodat
            SYS_fchmod SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr
            SYS_fremovexattr SYS_utimensat
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    unless(&[Without(1, WRITING)], &[Resolver], calls![SYS_open]),
    #[cfg(target_arch = "x86_64")]
    never(
        &[Resolver],
        calls![
            SYS_creat SYS_unlink SYS_rename SYS_mkdir SYS_rmdir SYS_chmod SYS_utime SYS_utimes
            SYS_futimesat
        ],
    ),
];
