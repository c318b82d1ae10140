//! The first act of the process: puts everything that a launcher passes on into a known state.
//!
//! User, signals, core dumps, umask, descriptors 0 to 2. Comes before the options, and takes sixteen system calls,
//! three more under inetd. Follows inetd(8), tcpserver(1), systemd.exec(5), signal(7) and core(5). What the descriptors
//! are for is left to `service`.

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

/// The highest number that [`inherited`] has returned. 0 to 2 are not for it.
static LAST_INHERITED: AtomicI32 = AtomicI32::new(STDERR);

/// A failed step of [`first_act`]. The machine or the launcher is at fault: without /dev/null, for example, other
/// programs fail as well.
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

/// Puts user, signals, core limit, umask and descriptors 0 to 2 into a known state.
pub fn first_act() -> Result<(), Error> {
    // First, because a log line may have to wait, and an error below is logged.
    alarm::init().map_err(at("sigaction"))?;
    take_root_back().map_err(at("seteuid"))?;
    reset_signals().map_err(at("sigaction"))?;
    forbid_core_dumps().map_err(at("core limit"))?;
    umask(Mode::from_bits_truncate(0o077));
    make_blocking(STDIN)?;
    make_blocking(STDOUT)?;
    let (input, output) = (ask(STDIN, fstat)?, ask(STDOUT, fstat)?);
    let diagnostics = ask(STDERR, fstat)?;
    // inetd, xinetd, spawn(8) and, by default, systemd put the client on all three; behind two pipes `2>&1` does.
    let is_client = |file| is_stream(file) && same_file(file, &diagnostics);
    if is_client(&input) || is_stream(&input) && is_client(&output) {
        dup2_stderr(dev_null()?).map_err(at("dup2"))?;
    }
    alarm::try_out().map_err(at("alarm(2), without which no wait ends"))
}

/// Makes the effective user root if the real user is root: a launcher that sets only the effective user leaves root to
/// any code of this process. Code that asks the effective user then gives root up. The saved user is the effective one
/// since exec.
fn take_root_back() -> nix::Result<()> {
    if id_at_exec(libc::AT_UID) == 0 && id_at_exec(libc::AT_EUID) != 0 {
        seteuid(Uid::from_raw(0))?;
    }
    Ok(())
}

/// Whether the process has root's group, as an id or as a further group. To be called if it does not have the user.
pub fn is_in_group_of_root() -> nix::Result<bool> {
    let by_id = [libc::AT_GID, libc::AT_EGID].map(id_at_exec).contains(&0);
    Ok(by_id || getgroups()?.contains(&Gid::from_raw(0)))
}

/// Whether the process is root in any way, so that a program that it starts could be.
pub fn has_root() -> bool {
    getresuid().is_ok_and(|ids| {
        [ids.real, ids.effective, ids.saved]
            .iter()
            .any(|id| id.is_root())
    })
}

/// A user or group id that the kernel passed at exec, without a system call.
fn id_at_exec(what: libc::c_ulong) -> libc::c_ulong {
    // SAFETY: getauxval takes a number. Linux has an entry for each of the four ids that callers ask for.
    unsafe { libc::getauxval(what) }
}

/// SIGCHLD, SIGTERM and SIGHUP can be inherited as ignored: a child's exit code would be lost, and the process could
/// not be stopped. So can SIGALRM, which has a handler here. SIGINT stays ignored, because a shell ignores it for
/// background processes. All signals are unblocked: a blocked SIGSYS kills without its handler.
fn reset_signals() -> nix::Result<()> {
    for number in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the default action runs no code of this process, so nothing has to be async-signal-safe.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    // A client that is gone, and a file at its limit, have to be errors of write.
    for number in [Signal::SIGPIPE, Signal::SIGXFSZ] {
        // SAFETY: ignoring a signal runs no code of this process.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    SigSet::empty().thread_set_mask()
}

/// Forbids core dumps, which would hold mail, also for children. If cores go to a program (core_pattern), the kernel
/// ignores the limit: a process that is not dumpable leaves no core there either, and its own user cannot trace it.
fn forbid_core_dumps() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)
}

/// O_NONBLOCK belongs to the open file: an earlier process with the connection may have set it.
fn make_blocking(number: RawFd) -> Result<(), Error> {
    let flags = OFlag::from_bits_retain(ask(number, |fd| fcntl(fd, FcntlArg::F_GETFL))?);
    if flags.contains(OFlag::O_NONBLOCK) {
        let blocking = flags - OFlag::O_NONBLOCK;
        ask(number, |fd| fcntl(fd, FcntlArg::F_SETFL(blocking)))?;
    }
    Ok(())
}

/// Asks the kernel about descriptor 0, 1 or 2. Opens /dev/null on it if it is closed: otherwise the next opened file
/// would get its number.
fn ask<T>(
    number: RawFd,
    question: impl Fn(BorrowedFd<'static>) -> nix::Result<T>,
) -> Result<T, Error> {
    // SAFETY: the descriptor is open, or the kernel answers EBADF and /dev/null is put there and stays; `client`, which
    // gives 0 and 1 an owner, is called later.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match question(fd) {
        Err(Errno::EBADF) => {
            // The lowest free number is this one, because callers go upward.
            let null = dev_null()?;
            debug_assert_eq!(null.as_raw_fd(), number);
            let _stays_open = null.into_raw_fd();
            question(fd)
        }
        answer => answer,
    }
    .map_err(at("standard descriptor"))
}

/// Whether the process may have rights that its starter has not: a set-id program, or one with file capabilities. The
/// kernel passed this at exec, without a system call.
pub fn has_foreign_rights() -> bool {
    // SAFETY: getauxval takes a number, and returns 0 for an unknown one.
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

/// Descriptors 0 and 1, which in stdin mode are the client's input and output. There is one owner: a second call
/// returns `None`.
pub fn client() -> Option<(OwnedFd, OwnedFd)> {
    if CLIENT_TAKEN.swap(true, Relaxed) {
        return None;
    }
    // SAFETY: 0 is open since `first_act`, and the flag above guarantees one owner.
    let input = unsafe { OwnedFd::from_raw_fd(STDIN) };
    // SAFETY: as for 0.
    let output = unsafe { OwnedFd::from_raw_fd(STDOUT) };
    Some((input, output))
}

/// Descriptor 0, for questions about the client before the session. The standard library's `stdin` would allocate a
/// buffer.
pub fn client_input() -> BorrowedFd<'static> {
    // SAFETY: 0 is open since `first_act`, until the owner from `client` closes it at the end of the session; callers
    // use it before the session.
    unsafe { BorrowedFd::borrow_raw(STDIN) }
}

/// Closes the descriptors above 2, and above those that [`inherited`] has returned. Not under master(8), which passes
/// descriptors that are needed later, and only before this process has opened any.
pub fn close_inherited() {
    // No descriptor from there on has an owner yet.
    close_all(first_unknown(), libc::c_uint::MAX);
}

/// Closes all descriptors except `kept`, and puts `null` on 0 to 2, which must be above 2 as well: otherwise the next
/// opened files would be where libraries write messages. Only for a process that no longer uses or drops any other
/// owner of a descriptor.
pub(super) fn keep_alone(kept: BorrowedFd<'_>, null: BorrowedFd<'_>) -> nix::Result<()> {
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(|_negative| Errno::EBADF)?;
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    for (first, last) in [(FIRST_ABOVE_STDERR, kept - 1), (kept + 1, u32::MAX)] {
        // If 3 is kept, the first range is empty, which the kernel refuses.
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

/// Whether the kernel has close_range(2). The number in the question is no descriptor's.
pub fn has_close_range() -> bool {
    close_range(libc::c_uint::MAX, libc::c_uint::MAX).is_ok()
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> nix::Result<()> {
    // SAFETY: three numbers. No owner of a descriptor in the range is used again: the obligation of callers.
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

/// Takes descriptor 0 over if it is a listening socket, under another number. 0 and 1 then lead to /dev/null until
/// there is a client. To be called after [`close_inherited`].
pub fn listening_input() -> nix::Result<OwnedFd> {
    let number = fcntl(client_input(), FcntlArg::F_DUPFD_CLOEXEC(STDERR + 1))?;
    // SAFETY: the kernel has just made this descriptor, which has no other owner.
    let listening = unsafe { OwnedFd::from_raw_fd(number) };
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(listening)
}

/// Takes descriptor `number` over, which the starter of the process has left open. Returns an error if it is not open.
/// Programs that this process starts do not get it. Only before this process has opened a descriptor, and in ascending
/// order; the same number a second time is an error.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= LAST_INHERITED.fetch_max(number, Relaxed) {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the kernel answers EBADF if nothing is open; the borrow ends before there is an owner.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, as fcntl has found; it has no other owner, because it is above 2, was not opened by this
    // process (the caller's obligation), and is returned once (LAST_INHERITED).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn close_each(first: libc::c_uint, last: libc::c_uint) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(CLOSE_EACH_LIMIT, |(soft, _)| soft);
    let end = limit
        .min(CLOSE_EACH_LIMIT)
        .min(libc::rlim_t::from(last) + 1);
    for number in libc::rlim_t::from(first)..end {
        if let Ok(fd) = RawFd::try_from(number) {
            // SAFETY: takes a number, and answers EBADF if it is closed; owners are as in `close_range`.
            unsafe { libc::close(fd) };
        }
    }
}

/// Makes a test's process start with a signal blocked in all its threads, so that the thread that unblocks it gets it.
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

    /// Set in the process that runs a test's own part: signals and descriptors belong to the whole process.
    const INSIDE: &str = "QMQPD_TEST_FIRST_ACT";

    /// Runs the named test again, in a process that `prepare` has set up as a launcher might.
    fn launched(test: &str, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &format!("sys::inherit::tests::{test}")])
            .args(["--nocapture", "--test-threads=1"])
            .env(INSIDE, test)
            .stdin(Stdio::null());
        // SAFETY: the functions of the tests make system calls only, and allocate nothing.
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
            // SAFETY: a number; 0 and 2 have no owner in this process.
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
            // SAFETY: numbers; the new descriptor has no owner.
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
                // SAFETY: numbers; the new descriptor has no owner.
                let status = unsafe { libc::dup2(STDIN, number) };
                assert_eq!(status, number);
            }
            close_all();
            for number in [3, 77, 500] {
                // SAFETY: numbers; asks about a descriptor that may be closed.
                let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
                assert_eq!((flags, Errno::last()), (-1, Errno::EBADF));
            }
            // SAFETY: as above.
            assert!(unsafe { libc::fcntl(STDERR, libc::F_GETFD) } >= 0);
        }
    }
}
