//! Attempts of what a process with few rights must not be able to do; not in a release build.
//!
//! Each attempt is one system call of an attacker in the process, harmless if it succeeds, or work without end. The
//! environment chooses it: `QMQPD_ESCAPE` is `PLACE:WAY`. `service` and `peer` decide when it is made; `jail` must
//! prevent it.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use nix::errno::Errno;

const PAGE: libc::c_long = 4096;

/// Where an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the confined process, before it reads the client.
    Session,
    /// In the child that looks a name up, instead of the lookup.
    Resolver,
    /// In the process that master(8) keeps, before it accepts a connection.
    Resident,
}

/// The descriptors of a confined process for its message in the method `file`.
#[derive(Debug, Clone, Copy)]
pub enum Held {
    File,
    Directory,
    Socket,
}

static HELD: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];

/// Stores a descriptor for attempts with it.
pub fn hold(what: Held, number: i32) {
    HELD[what as usize].store(number, Relaxed);
}

fn held(what: Held) -> libc::c_long {
    HELD[what as usize].load(Relaxed).into()
}

/// Makes the attempt that the environment names for this place, if any. Returns the line with the kernel's answer. If a
/// filter ends the process, this does not return.
pub fn outcome(place: Place) -> Option<String> {
    let asked = std::env::var("QMQPD_ESCAPE").ok()?;
    let (asked_place, way) = asked.split_once(':')?;
    let place = match place {
        Place::Session => "session",
        Place::Resolver => "resolver",
        Place::Resident => "resident",
    };
    if asked_place != place {
        return None;
    }
    Some(match attempt(way) {
        Some(Ok(())) => format!("escape: {way}"),
        Some(Err(errno)) => format!("escape: {way}: {}", errno.desc()),
        None => format!("escape: {way}: no such way"),
    })
}

fn attempt(way: &str) -> Option<nix::Result<()>> {
    if way == "work" {
        loop {
            std::hint::spin_loop();
        }
    }
    let found = call_in_process(way).or_else(|| call_in_files(way));
    let (call, arguments) = found.or_else(|| call_in_queue(way))?;
    let mut all = [0; 6];
    all.iter_mut()
        .zip(arguments)
        .for_each(|(to, from)| *to = from);
    Some(make(call, all))
}

type Call = (libc::c_long, Vec<libc::c_long>);

fn number(number: libc::c_int) -> libc::c_long {
    libc::c_long::from(number)
}

fn own() -> libc::c_long {
    std::process::id().into()
}

/// Called only if it is needed: a confined process may not call getppid.
fn parent() -> libc::c_long {
    std::os::unix::process::parent_id().into()
}

/// Attempts on processes, on memory and on the kernel.
fn call_in_process(way: &str) -> Option<Call> {
    let executable = number(libc::PROT_READ | libc::PROT_EXEC);
    let anonymous = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let new_user = number(libc::CLONE_NEWUSER);
    let here = number(libc::AT_FDCWD);
    Some(match way {
        "execve" => (libc::SYS_execve, vec![path(b"/nowhere\0")]),
        "execveat" => (libc::SYS_execveat, vec![here, path(b"/nowhere\0")]),
        "fork" => (libc::SYS_clone, vec![number(libc::SIGCHLD)]),
        "clone-user" => (libc::SYS_clone, vec![number(libc::SIGCHLD) | new_user]),
        "clone3" => (libc::SYS_clone3, vec![0, 0]),
        "unshare" => (libc::SYS_unshare, vec![new_user]),
        // There is no process 0.
        "ptrace" => (libc::SYS_ptrace, vec![libc::PTRACE_ATTACH.into()]),
        "kill" => (libc::SYS_kill, vec![own()]),
        // Signal 0 has no effect.
        "kill-group" => (libc::SYS_kill, vec![0]),
        "kill-parent" => (libc::SYS_kill, vec![parent()]),
        "tgkill-parent" => (libc::SYS_tgkill, vec![parent(), parent()]),
        "pidfd" => (libc::SYS_pidfd_open, vec![parent()]),
        // No bytes.
        "read-parent" => (libc::SYS_process_vm_readv, vec![parent()]),
        "priority" => (libc::SYS_setpriority, vec![0, 0, 19]),
        "limit-parent" => (libc::SYS_prlimit64, vec![parent()]),
        "dumpable" => (libc::SYS_prctl, vec![libc::PR_SET_DUMPABLE.into(), 1]),
        "outlive" => (libc::SYS_prctl, vec![libc::PR_SET_PDEATHSIG.into()]),
        "owner" => (libc::SYS_fcntl, vec![0, number(libc::F_SETOWN), own()]),
        "mmap" => (libc::SYS_mmap, vec![0, PAGE, executable, anonymous, -1]),
        "mprotect" => (libc::SYS_mprotect, vec![0, 0, executable]),
        "user" => (libc::SYS_setresuid, vec![-1, -1, -1]),
        "personality" => (libc::SYS_personality, vec![0xffff_ffff]),
        "perf" => (libc::SYS_perf_event_open, vec![0]),
        "io_uring" => (libc::SYS_io_uring_setup, vec![0]),
        "faults" => (libc::SYS_userfaultfd, vec![1]),
        "key" => (libc::SYS_add_key, vec![0]),
        "mount" => (libc::SYS_mount, vec![0]),
        _ => return None,
    })
}

/// struct sockaddr_un with a path.
#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 15],
}

static BOUNCE: Address = Address {
    family: 1,
    path: *b"private/bounce\0",
};

/// Attempts from the descriptors of a queue file on other files and sockets of the user.
fn call_in_queue(way: &str) -> Option<Call> {
    let (file, directory) = (held(Held::File), held(Held::Directory));
    let read = number(libc::PROT_READ);
    let other = path(b"../deferred/other\0");
    Some(match way {
        "mode" => (libc::SYS_fchmod, vec![file, 0o6755]),
        "map" => (
            libc::SYS_mmap,
            vec![0, PAGE, read, number(libc::MAP_PRIVATE), file],
        ),
        "remove" => (libc::SYS_unlinkat, vec![directory, other]),
        "remove-directory" => (
            libc::SYS_unlinkat,
            vec![directory, other, number(libc::AT_REMOVEDIR)],
        ),
        "connect-bounce" => (
            libc::SYS_connect,
            vec![
                held(Held::Socket),
                (&raw const BOUNCE).addr() as libc::c_long,
                17,
            ],
        ),
        _ => return None,
    })
}

/// Attempts on sockets and files.
fn call_in_files(way: &str) -> Option<Call> {
    let here = number(libc::AT_FDCWD);
    let (null, nowhere, below) = (
        path(b"/dev/null\0"),
        path(b"nowhere\0"),
        path(b"nowhere/a\0"),
    );
    let write = number(libc::O_WRONLY);
    Some(match way {
        "open" => (libc::SYS_openat, vec![here, null]),
        "write" => (libc::SYS_openat, vec![here, null, write]),
        "create" => (
            libc::SYS_openat,
            vec![here, below, number(libc::O_RDONLY | libc::O_CREAT)],
        ),
        "openat2" => (libc::SYS_openat2, vec![here, null]),
        "truncate" => (libc::SYS_truncate, vec![nowhere]),
        "unlink" => (libc::SYS_unlinkat, vec![here, nowhere]),
        "rename" => (libc::SYS_renameat2, vec![here, nowhere, here, below]),
        "link" => (libc::SYS_linkat, vec![here, nowhere, here, below]),
        "symlink" => (libc::SYS_symlinkat, vec![nowhere, here, below]),
        "mkdir" => (libc::SYS_mkdirat, vec![here, below]),
        "mknod" => (libc::SYS_mknodat, vec![here, below, number(0o010_600)]),
        "chmod" => (libc::SYS_fchmodat, vec![here, nowhere]),
        "chown" => (libc::SYS_fchownat, vec![here, nowhere, -1, -1]),
        "times" => (libc::SYS_utimensat, vec![here, nowhere]),
        "socket" => (
            libc::SYS_socket,
            vec![number(libc::AF_UNIX), number(libc::SOCK_STREAM)],
        ),
        // A rare family, which not every kernel has.
        "ciphers" => (
            libc::SYS_socket,
            vec![number(libc::AF_ALG), number(libc::SOCK_SEQPACKET)],
        ),
        // The client's connection, to no address.
        "connect" => (libc::SYS_connect, vec![0]),
        "listen" => (libc::SYS_listen, vec![-1]),
        "accept" => (libc::SYS_accept4, vec![-1]),
        _ => return None,
    })
}

fn path(path: &'static [u8]) -> libc::c_long {
    path.as_ptr() as libc::c_long
}

fn make(call: libc::c_long, [a, b, c, d, e, f]: [libc::c_long; 6]) -> nix::Result<()> {
    // SAFETY: the calls above get numbers, null, or literals that end in NUL and live for ever. Memory and descriptors
    // that they make have no owner. Nothing is unmapped or written to, and no protection is changed (the length is 0).
    // A child shares no memory with this process, and ends in the next lines.
    let result = unsafe { libc::syscall(call, a, b, c, d, e, f) };
    let result = Errno::result(result)?;
    if call == libc::SYS_clone && result == 0 {
        crate::sys::child::exit(0);
    }
    Ok(())
}
