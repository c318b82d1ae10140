//! The first act of the process: what a launcher may have handed down is put into the state the program counts on.
//!
//! The user, signals, core dumps, the umask, descriptors 0 to 2. Comes before the options are read, and takes sixteen
//! system calls, three more under inetd. Authority: inetd(8), tcpserver(1), systemd.exec(5), signal(7), core(5). Does not
//! know who the launcher is, nor what passes over 0 and 1.

use std::fmt::{self, Display};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, umask};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, getgroups, getresuid, seteuid};

use super::alarm;

const STDIN: RawFd = 0;
const STDOUT: RawFd = 1;
const STDERR: RawFd = 2;

/// Without close_range(2) (Linux before 5.9) descriptors are closed one by one, below the process's own limit and this
/// one: containers have limits of a thousand million.
pub const CLOSE_EACH_LIMIT: libc::rlim_t = 65_536;

/// The lowest number that is not for standard input, output and error.
const FIRST_ABOVE_STDERR: libc::c_uint = 3;

static CLIENT_TAKEN: AtomicBool = AtomicBool::new(false);

/// The highest number that [`inherited`] was asked for. 0 to 2 are not for it.
static LAST_INHERITED: AtomicI32 = AtomicI32::new(STDERR);

/// A step of [`first_act`] that failed. The machine or the launcher is at fault; without /dev/null, say, nothing else works
/// either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    step: &'static str,
    errno: Errno,
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.errno.desc())
    }
}

impl std::error::Error for Error {}

fn at(step: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error { step, errno }
}

/// Puts user, signals, core limit, umask and descriptors 0 to 2 in order, before anything else is done.
pub fn first_act() -> Result<(), Error> {
    // First: a log line may have to wait, and what fails here is logged.
    alarm::init().map_err(at("sigaction"))?;
    take_root_back().map_err(at("seteuid"))?;
    reset_signals().map_err(at("sigaction"))?;
    forbid_core_dumps().map_err(at("core limit"))?;
    umask(Mode::from_bits_truncate(0o077));
    make_blocking(STDIN)?;
    make_blocking(STDOUT)?;
    let (input, output) = (ask(STDIN, fstat)?, ask(STDOUT, fstat)?);
    let diagnostics = ask(STDERR, fstat)?;
    // inetd, xinetd, spawn(8), and systemd by default, put the client on all three; behind two pipes, `2>&1` leads to it.
    let is_client = |file| is_stream(file) && same_file(file, &diagnostics);
    if is_client(&input) || is_stream(&input) && is_client(&output) {
        dup2_stderr(dev_null()?).map_err(at("dup2"))?;
    }
    alarm::try_out().map_err(at("alarm(2), without which no wait ends"))
}

/// A launcher that sets the effective user alone leaves root in the real one, where any code of this process finds it.
/// What asks the effective user whether there is root to give up has to see it. The saved user is the effective one: the
/// kernel makes it so at exec.
fn take_root_back() -> nix::Result<()> {
    if id_at_exec(libc::AT_UID) == 0 && id_at_exec(libc::AT_EUID) != 0 {
        seteuid(Uid::from_raw(0))?;
    }
    Ok(())
}

/// Whether the process has the group of root, by its ids or besides them. To be asked where it does not have the user.
pub fn is_in_group_of_root() -> nix::Result<bool> {
    let by_id = [libc::AT_GID, libc::AT_EGID].map(id_at_exec).contains(&0);
    Ok(by_id || getgroups()?.contains(&Gid::from_raw(0)))
}

/// Whether the process is root in any way, so that a program which it starts could be.
pub fn has_root() -> bool {
    getresuid().is_ok_and(|ids| {
        [ids.real, ids.effective, ids.saved]
            .iter()
            .any(|id| id.is_root())
    })
}

/// A user or group id that the kernel said at exec; no system call is needed.
fn id_at_exec(what: libc::c_ulong) -> libc::c_ulong {
    // SAFETY: getauxval takes a number. Linux has an entry for each of the four ids that callers ask for.
    unsafe { libc::getauxval(what) }
}

/// SIGCHLD, SIGTERM and SIGHUP can come down ignored: the exit code of a child would be lost, and the process could not be
/// stopped. So can SIGALRM, which has a handler by now. SIGINT stays ignored where a shell has done so: it is for what runs
/// in the foreground. Everything is unblocked: a blocked SIGSYS kills without its handler.
fn reset_signals() -> nix::Result<()> {
    for number in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the default action runs no code of this process, so nothing has to be async-signal-safe.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    // A client that is gone and a file that outgrows its limit are to be errors of write, not the end.
    for number in [Signal::SIGPIPE, Signal::SIGXFSZ] {
        // SAFETY: to ignore a signal runs no code of this process either.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    SigSet::empty().thread_set_mask()
}

/// A core holds mail. The limit goes down to children as well. Where cores go to a program (core_pattern), the kernel
/// does not look at it: a process that is not dumpable leaves none there either, nor can its own user trace it.
fn forbid_core_dumps() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)
}

/// O_NONBLOCK belongs to the open file, not to the process: whoever had the connection before may have left it set.
fn make_blocking(number: RawFd) -> Result<(), Error> {
    let flags = OFlag::from_bits_retain(ask(number, |fd| fcntl(fd, FcntlArg::F_GETFL))?);
    if flags.contains(OFlag::O_NONBLOCK) {
        let blocking = flags - OFlag::O_NONBLOCK;
        ask(number, |fd| fcntl(fd, FcntlArg::F_SETFL(blocking)))?;
    }
    Ok(())
}

/// Asks the kernel about descriptor 0, 1 or 2, which is /dev/null from here on if it was closed: else the next file
/// that is opened would take its place.
fn ask<T>(
    number: RawFd,
    question: impl Fn(BorrowedFd<'static>) -> nix::Result<T>,
) -> Result<T, Error> {
    // SAFETY: the descriptor is open, or the kernel answers EBADF and what is put there then stays open; `client`,
    // which gives 0 and 1 an owner who may close them, comes later.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match question(fd) {
        Err(Errno::EBADF) => {
            // The lowest free number is this one, as callers go upward.
            let null = dev_null()?;
            debug_assert_eq!(null.as_raw_fd(), number);
            let _stays_open = null.into_raw_fd();
            question(fd)
        }
        answer => answer,
    }
    .map_err(at("standard descriptor"))
}

/// Whether the process may have other rights than whoever started it: a set-id program, or one with capabilities of its
/// own. The kernel says so at exec; no system call is needed.
pub fn has_foreign_rights() -> bool {
    // SAFETY: getauxval takes a number, and answers 0 for what it does not know.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn dev_null() -> Result<OwnedFd, Error> {
    open("/dev/null", OFlag::O_RDWR, Mode::empty()).map_err(at("open /dev/null"))
}

/// A socket or a pipe: a client can be at the other end.
fn is_stream(file: &FileStat) -> bool {
    let kind = file.st_mode & SFlag::S_IFMT.bits();
    [SFlag::S_IFSOCK.bits(), SFlag::S_IFIFO.bits()].contains(&kind)
}

fn same_file(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Descriptors 0 and 1, which in stdin mode are the client: its input and its output. There is one owner; whoever asks
/// again gets nothing.
pub fn client() -> Option<(OwnedFd, OwnedFd)> {
    if CLIENT_TAKEN.swap(true, Relaxed) {
        return None;
    }
    // SAFETY: 0 is open since `first_act`, and the flag above sees to it that nobody else owns it.
    let input = unsafe { OwnedFd::from_raw_fd(STDIN) };
    // SAFETY: as for 0.
    let output = unsafe { OwnedFd::from_raw_fd(STDOUT) };
    Some((input, output))
}

/// Descriptor 0, for questions about the client before it is served. Not by the standard library's `stdin`, which
/// allocates a buffer to read into.
pub fn client_input() -> BorrowedFd<'static> {
    // SAFETY: 0 is open since `first_act`, and until the owner that `client` makes closes it, at the end of the session;
    // callers ask before they serve.
    unsafe { BorrowedFd::borrow_raw(STDIN) }
}

/// Closes what a launcher left open above 2, and above what [`inherited`] has taken over. Not under master(8), which hands
/// down descriptors that are needed later, and only before this process has opened anything.
pub fn close_inherited() {
    // Nothing in this process owns a descriptor from there on yet.
    close_all(first_unknown(), libc::c_uint::MAX);
}

/// Closes all descriptors but `kept`; at 0 to 2 there is `null` then, which must be above 2 as well: else what is opened
/// next would be where libraries write complaints. Only for a process that makes no use of anything that owns one of the
/// others, not even to drop it.
pub(super) fn keep_alone(kept: BorrowedFd<'_>, null: BorrowedFd<'_>) -> nix::Result<()> {
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(|_negative| Errno::EBADF)?;
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    for (first, last) in [(FIRST_ABOVE_STDERR, kept - 1), (kept + 1, u32::MAX)] {
        // Where 3 is kept, the first range is empty, and the kernel would refuse it.
        if first <= last {
            close_all(first, last);
        }
    }
    Ok(())
}

fn close_all(first: libc::c_uint, last: libc::c_uint) {
    if close_range(first, last).is_err() {
        close_each(first, last);
    }
}

/// Whether the kernel has close_range(2). No descriptor has the number that is asked about.
pub fn has_close_range() -> bool {
    close_range(libc::c_uint::MAX, libc::c_uint::MAX).is_ok()
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> nix::Result<()> {
    // SAFETY: three plain numbers. What is in the range has no owner that is used any more: the obligation of callers.
    let status = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(status).map(drop)
}

/// The lowest number that may be open without an owner.
fn first_unknown() -> libc::c_uint {
    LAST_INHERITED
        .load(Relaxed)
        .unsigned_abs()
        .saturating_add(1)
}

/// Takes over descriptor 0 where it is no client, but a socket that listens for clients. It gets another number, and
/// /dev/null is what 0 and 1 lead to until there is a client. After [`close_inherited`].
pub fn listening_input() -> nix::Result<OwnedFd> {
    let number = fcntl(client_input(), FcntlArg::F_DUPFD_CLOEXEC(STDERR + 1))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has been told its number.
    let listening = unsafe { OwnedFd::from_raw_fd(number) };
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(listening)
}

/// Takes over descriptor `number`, which whoever started the process has left open under a number that both know: an
/// error where it has not. No program that this one starts will have it. Only before this process has opened anything.
/// Numbers are asked for in ascending order, and each once: a second time is an error as well.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= LAST_INHERITED.fetch_max(number, Relaxed) {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the kernel answers EBADF if nothing is open; the borrow ends before there is an owner.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, as fcntl has just found; it has no other owner, because it was above 2 and not opened by this
    // process (the caller's obligation) and is given out once (LAST_INHERITED).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn close_each(first: libc::c_uint, last: libc::c_uint) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(CLOSE_EACH_LIMIT, |(soft, _)| soft);
    let end = limit
        .min(CLOSE_EACH_LIMIT)
        .min(libc::rlim_t::from(last) + 1);
    for number in libc::rlim_t::from(first)..end {
        if let Ok(fd) = RawFd::try_from(number) {
            // SAFETY: takes a plain number, answers EBADF where nothing is open; owners are as in `close_range`.
            unsafe { libc::close(fd) };
        }
    }
}

/// Has a test's process start with a signal blocked in all its threads, so that the one that unblocks it gets it.
#[cfg(test)]
pub fn start_blocked(command: &mut std::process::Command, number: Signal) {
    use std::os::unix::process::CommandExt;

    let block = move || Ok(SigSet::from(number).thread_block()?);
    // SAFETY: between fork and exec `block` makes one system call, and allocates nothing.
    unsafe { command.pre_exec(block) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the process in which a test's own part runs; signals and descriptors belong to a whole process.
    const INSIDE: &str = "QMQPD_TEST_FIRST_ACT";

    /// Runs the named test once more, in a process that `prepare` has set up as a launcher might.
    fn launched(test: &str, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &format!("sys::inherit::tests::{test}")])
            .args(["--nocapture", "--test-threads=1"])
            .env(INSIDE, test)
            .stdin(Stdio::null());
        // SAFETY: what the tests pass makes system calls only, and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let output = command.output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{test}: {said}");
        assert!(
            said.contains("1 passed") || said.is_empty(),
            "{test}: {said}"
        );
    }

    fn inside(test: &str) -> bool {
        std::env::var_os(INSIDE).is_some_and(|name| name == test)
    }

    /// A line of /proc/thread-self/status, such as the mask of ignored signals.
    fn status(name: &str) -> u64 {
        let all = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = all.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    fn bit(number: Signal) -> u64 {
        1 << (number as u32 - 1)
    }

    fn link(fd: RawFd) -> String {
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn is_nonblocking(fd: &OwnedFd) -> bool {
        OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn signals_that_come_down_ignored_or_blocked_work_again() {
        let name = "signals_that_come_down_ignored_or_blocked_work_again";
        if !inside(name) {
            return launched(name, || {
                for number in [libc::SIGCHLD, libc::SIGALRM, libc::SIGTERM, libc::SIGHUP] {
                    // SAFETY: runs no code of the process.
                    unsafe { libc::signal(number, libc::SIG_IGN) };
                }
                // SAFETY: as above.
                unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
                SigSet::all().thread_set_mask().map_err(io::Error::from)
            });
        }
        let before = status("SigIgn");
        assert!(before & bit(Signal::SIGCHLD) != 0 && before & bit(Signal::SIGHUP) != 0);
        assert!(status("SigBlk") & bit(Signal::SIGTERM) != 0);
        first_act().unwrap();
        let ignored = status("SigIgn");
        for number in [
            Signal::SIGCHLD,
            Signal::SIGALRM,
            Signal::SIGTERM,
            Signal::SIGHUP,
        ] {
            assert!(ignored & bit(number) == 0, "{number} is ignored");
        }
        for number in [Signal::SIGPIPE, Signal::SIGXFSZ] {
            assert!(ignored & bit(number) != 0, "{number} is not ignored");
        }
        assert_eq!(status("SigBlk"), 0);
    }

    #[test]
    fn no_core_is_left_and_new_files_are_private() {
        let name = "no_core_is_left_and_new_files_are_private";
        if !inside(name) {
            return launched(name, || Ok(()));
        }
        first_act().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(prctl::get_dumpable(), Ok(false));
        assert_eq!(umask(Mode::empty()).bits(), 0o077);
    }

    #[test]
    fn the_client_on_descriptor_2_is_replaced() {
        let name = "the_client_on_descriptor_2_is_replaced";
        if !inside(name) {
            let (client, server) = UnixStream::pair().unwrap();
            client.set_nonblocking(true).unwrap();
            server.set_nonblocking(true).unwrap();
            launched(name, move || {
                for number in STDIN..=STDERR {
                    // SAFETY: plain numbers; the child is about to exec and owns all its descriptors.
                    let status = unsafe { libc::dup2(server.as_raw_fd(), number) };
                    Errno::result(status)?;
                }
                Ok(())
            });
            drop(client);
            return;
        }
        first_act().unwrap();
        assert_eq!(link(STDERR), "/dev/null");
        let (input, output) = client().unwrap();
        assert!(link(STDIN).starts_with("socket:"));
        assert!(!is_nonblocking(&input) && !is_nonblocking(&output));
        assert!(client().is_none());
    }

    #[test]
    fn a_log_on_descriptor_2_stays() {
        let name = "a_log_on_descriptor_2_stays";
        if !inside(name) {
            let (client, server) = UnixStream::pair().unwrap();
            launched(name, move || {
                // SAFETY: plain numbers; the child is about to exec and owns all its descriptors.
                let status = unsafe { libc::dup2(server.as_raw_fd(), STDIN) };
                Errno::result(status).map(drop).map_err(io::Error::from)
            });
            drop(client);
            return;
        }
        let log = link(STDERR);
        assert!(log.starts_with("pipe:"));
        first_act().unwrap();
        assert_eq!(link(STDERR), log);
    }

    #[test]
    fn a_closed_standard_descriptor_becomes_dev_null() {
        let name = "a_closed_standard_descriptor_becomes_dev_null";
        if !inside(name) {
            return launched(name, || Ok(()));
        }
        for number in [STDIN, STDERR] {
            // SAFETY: plain number; nobody in this process owns 0 or 2.
            unsafe { libc::close(number) };
        }
        first_act().unwrap();
        assert_eq!(link(STDIN), "/dev/null");
        assert_eq!(link(STDERR), "/dev/null");
    }

    #[test]
    fn what_master_hands_down_is_taken_once_and_does_not_go_further() {
        let name = "what_master_hands_down_is_taken_once_and_does_not_go_further";
        if !inside(name) {
            return launched(name, || Ok(()));
        }
        for number in [77, 79] {
            // SAFETY: plain numbers; what this makes is owned by nobody.
            let status = unsafe { libc::dup2(STDIN, number) };
            assert_eq!(status, number);
        }
        let fd = inherited(77).unwrap();
        let flags = FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        for number in [STDERR, 77, 78] {
            inherited(number).unwrap_err();
        }
        assert_eq!(inherited(79).unwrap().as_raw_fd(), 79);
    }

    #[test]
    fn what_a_launcher_left_open_is_closed() {
        let name = "what_a_launcher_left_open_is_closed";
        if !inside(name) {
            return launched(name, || Ok(()));
        }
        for close_all in [close_inherited as fn(), || close_each(3, u32::MAX)] {
            for number in [3, 77, 500] {
                // SAFETY: plain numbers; what this makes is owned by nobody.
                let status = unsafe { libc::dup2(STDIN, number) };
                assert_eq!(status, number);
            }
            close_all();
            for number in [3, 77, 500] {
                // SAFETY: plain numbers; asks about a descriptor, whether open or not.
                let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
                assert_eq!((flags, Errno::last()), (-1, Errno::EBADF));
            }
            // SAFETY: as above.
            assert!(unsafe { libc::fcntl(STDERR, libc::F_GETFD) } >= 0);
        }
    }
}
