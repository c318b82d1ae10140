//! Starts children, which are copies of this process.
//!
//! One kind serves a connection: [`fork`] and [`wait`]. The other kind makes a call that may sleep for a minute and
//! does not end at a signal, such as the resolver's: the caller waits for the answer for a limited time, and kills the
//! child. No child outlives the wait for it.
//!
//! A child begins with its parent's memory, which may hold the parent's process id: [`own_id`] handles that. Follows
//! fork(2), prctl(2) and wait(2). Another program is `sys::program`'s.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid, pipe2, read};

use super::{alarm, ignore, inherit, memory};

/// How long a child may outlive its parent's wait if the parent is gone, and how long it may take to end after a
/// signal.
const FUSE: Duration = Duration::from_secs(1);

/// The id of this process after the first [`own_id`]; 0 before.
static OWN_ID: AtomicU32 = AtomicU32::new(0);

/// The id of this process, with one system call: every log line has it.
pub fn own_id() -> u32 {
    match OWN_ID.load(Relaxed) {
        0 => {
            let id = std::process::id();
            OWN_ID.store(id, Relaxed);
            id
        }
        id => id,
    }
}

/// Which of two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Child { parent: Pid },
    Parent { child: Pid },
}

/// Forks. The child has everything that the parent has, and ends independently.
pub fn fork() -> io::Result<Fork> {
    let parent = getpid();
    Ok(match split()? {
        ForkResult::Child => Fork::Child { parent },
        ForkResult::Parent { child } => Fork::Parent { child },
    })
}

/// Forks, and sets [`OWN_ID`] in the child.
fn split() -> nix::Result<ForkResult> {
    // SAFETY: the child may use locks only if no other thread held one at the fork; the program has one thread. (The
    // tests have more: the C library protects its own allocator, and the children of tests use no other lock.)
    let result = unsafe { nix::unistd::fork() }?;
    if result.is_child() {
        OWN_ID.store(0, Relaxed);
    }
    Ok(result)
}

/// In a child: SIGTERM comes when `parent` ends. Returns an error if it has ended already. To be called when the child
/// has its final user and capabilities: a change of them cancels it.
pub fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(Errno::ESRCH.into())
    }
}

/// Ends the process at once, without destructors of the program or of libraries: all output must have been written.
/// Async-signal-safe.
pub fn exit(code: u8) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Waits until `child` ends. Tells it to end after `limit`, kills it [`FUSE`] later, and reaps it in any case.
pub fn wait(child: Pid, limit: Duration) -> io::Result<WaitStatus> {
    let mut status = alarm::bounded(limit, || waitpid(child, None));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if !is_timeout(&status) {
            break;
        }
        // The child has not been reaped, so that its number is not used again.
        kill(child, signal)?;
        status = alarm::bounded(FUSE, || waitpid(child, None));
    }
    alarm::disarm();
    if is_timeout(&status) {
        return reap(child);
    }
    status
}

fn is_timeout<T>(result: &io::Result<T>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Runs `work` in a child and returns its answer; `None` if it takes longer than `limit`.
///
/// The child has ended when this returns. `work` has a copy of the process with its locks; destructors and buffers of
/// standard output do not run in the child. It must neither log nor use the client's descriptors. An error means that
/// there was no child, or that it died before its answer.
pub fn bounded_child(
    limit: Duration,
    work: impl FnOnce() -> Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    run_child(limit, usize::MAX, |_| Ok(()), work)
}

/// The same as [`bounded_child`], in a child without descriptors except the pipe for its answer. An answer of more than
/// `size` bytes is an error.
pub fn isolated_child(
    limit: Duration,
    size: usize,
    work: impl FnOnce() -> Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    run_child(limit, size, keep_pipe, work)
}

/// The ends of a child's pipe: the parent's to read, the child's to write.
struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
}

/// Leaves the pipe alone. Its read end takes the place of 0 to 2, where libraries expect descriptors, and cannot be
/// written to.
fn keep_pipe(pipe: &Pipe) -> nix::Result<()> {
    inherit::keep_alone(pipe.input.as_fd(), pipe.output.as_fd())
}

fn run_child(
    limit: Duration,
    size: usize,
    prepare: fn(&Pipe) -> nix::Result<()>,
    work: impl FnOnce() -> Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
    match split()? {
        ForkResult::Child => be_child(limit, Pipe { output, input }, prepare, work),
        ForkResult::Parent { child } => {
            drop(input);
            let answer = read_answer(limit, size, &output);
            if answer.is_err() {
                // The child has not been reaped, so that its number is not used again, even if it has just ended.
                kill(child, Signal::SIGKILL)?;
            }
            let status = reap(child)?;
            match answer {
                Ok(bytes) if status == WaitStatus::Exited(child, 0) => Ok(Some(bytes)),
                Ok(_) => Err(io::Error::other(format!(
                    "the child process ended early: {status:?}"
                ))),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => Ok(None),
                Err(e) => Err(e),
            }
        }
    }
}

fn read_answer(limit: Duration, size: usize, pipe: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    alarm::bounded(limit, || {
        loop {
            let length = read(pipe.as_fd(), &mut chunk)?;
            if length == 0 || answer.len() > size {
                return Ok(());
            }
            answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
        }
    })?;
    if answer.len() > size {
        let text = format!("the child process answered with more than {size} bytes");
        return Err(io::Error::other(text));
    }
    Ok(answer)
}

fn reap(child: Pid) -> io::Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Ends the child at the end of its frame, also at a panic, which must not unwind into the copy of the caller.
struct ExitOnDrop(u8);

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        exit(self.0)
    }
}

fn be_child(
    limit: Duration,
    pipe: Pipe,
    prepare: fn(&Pipe) -> nix::Result<()>,
    work: impl FnOnce() -> Vec<u8>,
) -> ! {
    let mut end = ExitOnDrop(1);
    // SAFETY: SIG_DFL is no function of the program, and so runs none of its code.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    // It fails only for a number that is no signal.
    ignore(prctl::set_pdeathsig(Signal::SIGKILL));
    let fuse = limit.saturating_add(FUSE).as_secs();
    nix::unistd::alarm::set(u32::try_from(fuse).unwrap_or(u32::MAX).max(1));
    let is_ready = prepare(&pipe).is_ok();
    let mut input = File::from(pipe.input);
    if is_ready {
        end.0 = u8::from(input.write_all(&work()).is_err());
    }
    drop(end);
    std::process::abort()
}

/// Starts a program that reads two streams, on descriptors 0 and 1; its standard error is /dev/null. Returns its
/// process id and the ends to write to.
///
/// The program has all signals at their defaults and none blocked, independent of this process: a program that does not
/// expect SIGCHLD or SIGPIPE to be ignored could lose mail.
pub fn start_reader(program: &Path) -> io::Result<(Pid, OwnedFd, OwnedFd)> {
    let (input, to_input) = pipe2(OFlag::O_CLOEXEC)?;
    let (output, to_output) = pipe2(OFlag::O_CLOEXEC)?;
    let mut command = Command::new(program);
    command.stdin(input).stdout(output).stderr(Stdio::null());
    // SAFETY: between fork and exec `as_launched` makes system calls, and allocates nothing.
    unsafe { command.pre_exec(as_launched) };
    let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
    Ok((Pid::from_raw(pid), to_input, to_output))
}

/// Undoes this process's settings of signals, except for real-time signals, which launchers do not set. SIGKILL and
/// SIGSTOP cannot be set.
fn as_launched() -> io::Result<()> {
    memory::unlimit_data();
    for number in 1..=31 {
        // SAFETY: takes numbers; the default action runs no code of this process.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread::sleep;
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs a test with alarms in a child, which has one thread: alarms reach any thread of a test program.
    pub fn alone(test: impl FnOnce() -> bool) -> bool {
        alarm::init().expect("alarm");
        let child = bounded_child(LIMIT, || {
            alarm::init().expect("alarm");
            vec![u8::from(test())]
        });
        child.expect("child").is_some_and(|answer| answer == [1])
    }

    #[test]
    fn the_answer_comes_back_whole() {
        alarm::init().expect("alarm");
        let long: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(
            bounded_child(LIMIT, || long.clone()).expect("child"),
            Some(long)
        );
        assert_eq!(
            bounded_child(LIMIT, Vec::new).expect("child"),
            Some(Vec::new())
        );
    }

    #[test]
    fn an_isolated_child_has_a_pipe_and_no_other_descriptor() {
        alarm::init().expect("alarm");
        let (_one, _other) = pipe2(OFlag::empty()).expect("pipe");
        let answer = isolated_child(LIMIT, 1000, || {
            let links = std::fs::read_dir("/proc/self/fd").expect("proc");
            let named = links.map(|link| {
                let link = link.expect("entry");
                let target = std::fs::read_link(link.path()).expect("link");
                let name = link.file_name();
                format!("{} {}\n", name.to_string_lossy(), target.display())
            });
            named.collect::<String>().into_bytes()
        });
        let answer = answer.expect("child").expect("in time");
        let text = String::from_utf8(answer).expect("text");
        let is_other = |line: &&str| !line.contains(" /proc/");
        let mut lines: Vec<&str> = text.lines().filter(is_other).collect();
        lines.sort_unstable();
        let pipe = lines[0].strip_prefix("0 ").expect("a number").to_owned();
        assert!(pipe.starts_with("pipe:["), "{lines:?}");
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines.iter().all(|line| line.ends_with(&pipe)), "{lines:?}");
        let cannot_write = isolated_child(LIMIT, 1, || {
            let fd = |number| {
                // SAFETY: `isolated_child` has put a descriptor there, which stays open.
                unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
            };
            let refused = |number| nix::unistd::write(fd(number), b"x") == Err(Errno::EBADF);
            vec![u8::from((0..3).all(refused))]
        });
        assert_eq!(cannot_write.expect("child"), Some(vec![1]));
    }

    #[test]
    fn an_answer_has_a_limit() {
        assert!(alone(|| {
            let of = |length: usize| isolated_child(LIMIT, 2000, || vec![b'x'; length]);
            let endless = isolated_child(LIMIT, 2000, || vec![b'x'; 10_000_000]);
            of(2000).is_ok_and(|answer| answer.is_some_and(|answer| answer.len() == 2000))
                && of(2001).is_err_and(|error| {
                    error.to_string() == "the child process answered with more than 2000 bytes"
                })
                && endless.is_err()
                && waitpid(None, None) == Err(Errno::ECHILD)
        }));
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed_and_reaped() {
        assert!(alone(|| {
            let start = Instant::now();
            let answer = bounded_child(Duration::from_secs(1), || {
                sleep(LIMIT);
                vec![1]
            });
            matches!(answer, Ok(None))
                && start.elapsed() < Duration::from_secs(10)
                && waitpid(None, None) == Err(Errno::ECHILD)
        }));
    }

    /// Waits in a process with one thread for a child that does `work`.
    fn waited(work: impl FnOnce(Pid), limit: Duration, expected: fn(Pid) -> WaitStatus) -> bool {
        alone(|| {
            match fork().expect("fork") {
                Fork::Child { parent } => {
                    let mut exit = ExitOnDrop(1);
                    work(parent);
                    exit.0 = 7;
                    drop(exit);
                    false
                }
                Fork::Parent { child } => {
                    let status = wait(child, limit);
                    // No alarm is left.
                    nix::unistd::alarm::cancel().is_none()
                        && status.is_ok_and(|status| status == expected(child))
                        && waitpid(None, None) == Err(Errno::ECHILD)
                }
            }
        })
    }

    #[test]
    fn a_child_is_waited_for_and_killed_when_its_time_is_over() {
        let exited = |child| WaitStatus::Exited(child, 7);
        assert!(waited(
            |parent| assert_eq!(getppid(), parent),
            LIMIT,
            exited
        ));
        let told = |child| WaitStatus::Signaled(child, Signal::SIGTERM, false);
        assert!(waited(|_| sleep(LIMIT), Duration::from_secs(1), told));
        let killed = |child| WaitStatus::Signaled(child, Signal::SIGKILL, false);
        let deaf = |_| {
            // SAFETY: ignoring a signal runs no code of this process.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            sleep(LIMIT);
        };
        assert!(waited(deaf, Duration::from_secs(1), killed));
    }

    #[test]
    fn a_child_has_a_number_of_its_own() {
        let parent = own_id();
        assert_eq!(parent, std::process::id());
        let fork_too = || {
            waited(
                |_| assert_eq!(own_id(), std::process::id()),
                LIMIT,
                |child| WaitStatus::Exited(child, 7),
            )
        };
        assert!(alone(move || {
            own_id() == std::process::id() && own_id() != parent && fork_too()
        }));
    }

    #[test]
    fn a_child_dies_with_its_parent() {
        let (alive, hold) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        assert!(alone(move || {
            match fork().expect("fork") {
                Fork::Child { parent } => {
                    let exit = ExitOnDrop(0);
                    die_with(parent).expect("prctl");
                    nix::unistd::write(&hold, b"x").expect("write");
                    sleep(LIMIT);
                    drop(exit);
                    false
                }
                Fork::Parent { .. } => read(&alive, &mut [0]) == Ok(1),
            }
        }));
        assert!(die_with(Pid::from_raw(i32::MAX)).is_err());
    }

    #[test]
    fn a_child_that_dies_is_an_error_not_an_answer() {
        assert!(alone(|| {
            let answer = bounded_child(LIMIT, || {
                // SAFETY: raise takes a number.
                unsafe { libc::raise(libc::SIGKILL) };
                Vec::new()
            });
            answer.is_err() && waitpid(None, None) == Err(Errno::ECHILD)
        }));
    }
}
