//! How long a test waits: for an event, and never without end.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The longest that a test waits for one thing to happen: longer than anything takes that works, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is yes, for `limit` at most; the last answer.
pub fn until(limit: Duration, mut question: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if question() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
}

/// Whether something can be read from `fd` within `limit`; its end counts.
pub fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], left) {
            Ok(ready) => return ready > 0,
            Err(nix::Error::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// The next client; fails if none comes.
pub fn accept(listener: &TcpListener) -> TcpStream {
    assert!(is_readable(listener, PATIENCE), "no client comes");
    listener.accept().unwrap().0
}

/// The exit status of a process; fails if it does not end, and ends it.
pub fn end_of(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until(PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap_or_else(|| {
        drop(child.kill());
        drop(child.wait());
        panic!("process {} has not ended", child.id());
    })
}

/// Runs a command: [`output_of`].
pub fn output(command: &mut Command) -> Output {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    output_of(command.stdin(Stdio::null()).spawn().unwrap())
}

/// What a process has said by its end; fails if it does not end, and ends it.
pub fn output_of(child: Child) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (ended, watched) = channel::<()>();
    let watch = thread::spawn(move || {
        let is_late = watched.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if is_late {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        is_late
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    assert!(!watch.join().unwrap(), "has not ended: {output:?}");
    output
}
