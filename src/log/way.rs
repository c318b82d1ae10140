//! Sends lines to a log that may not read them.
//!
//! A log that has stopped must not hold a session: its client waits, and its place is needed. Unlike Postfix, a process
//! waits for a log for [`PATIENCE`] in all, and then not at all (`tests/spec/differences.md`, 44). Lines that the log
//! does not take are counted, and the count is the first line that it takes again. The form of a line is left to `log`.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use super::level::Level;
use crate::sys::alarm;

/// The longest wait of a process for one log, all lines together.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The waits of a process for a log, and its dropped lines.
#[derive(Debug)]
pub struct Way {
    /// The rest of [`PATIENCE`].
    patience: Duration,
    /// The lines that the log has not taken since the last one that it took.
    dropped: u64,
}

impl Way {
    /// For a log that has not been tried yet.
    pub const NEW: Way = Way {
        patience: PATIENCE,
        dropped: 0,
    };

    /// Calls `work` with the longest time that it may wait, and subtracts the time that it took.
    pub fn patiently<T>(&mut self, work: impl FnOnce(Duration) -> T) -> T {
        let begin = Instant::now();
        let result = work(self.patience);
        self.patience = self.patience.saturating_sub(begin.elapsed());
        result
    }

    /// Sends a line by `write`, and before it the number of dropped lines, if any.
    pub fn send(
        &mut self,
        level: Level,
        message: &str,
        mut write: impl FnMut(Level, &str, Duration) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut result = Ok(());
        if self.dropped > 0 {
            let count = format!("warning: {} log lines were dropped", self.dropped);
            result = self.patiently(|limit| write(Level::Warning, &count, limit));
            if result.is_ok() {
                self.dropped = 0;
            }
        }
        if result.is_ok() {
            result = self.patiently(|limit| write(level, message, limit));
        }
        if result.is_err() {
            self.dropped = self.dropped.saturating_add(1);
        }
        result
    }

    /// In a new process: the dropped lines are its parent's.
    pub fn forget_dropped(&mut self) {
        self.dropped = 0;
    }
}

/// A connection to a daemon that takes lines on a UNIX-domain socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The end of each line; empty for a datagram.
    ending: &'static [u8],
    /// The longest wait of [`Write`].
    limit: Duration,
}

impl Socket {
    /// A datagram socket. Its connect does not wait.
    pub fn datagram(path: &Path) -> io::Result<Socket> {
        let fd = make(SockType::Datagram, SockFlag::empty())?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Socket::new(fd, b""))
    }

    /// A stream, as in the C library's syslog(3): each line ends in a NUL. The connect waits for a daemon that does not
    /// accept, for `limit` at most.
    pub fn stream(path: &Path, limit: Duration) -> io::Result<Socket> {
        let address = UnixAddr::new(path)?;
        let fd = if limit.is_zero() {
            let fd = make(SockType::Stream, SockFlag::SOCK_NONBLOCK)?;
            connect(fd.as_raw_fd(), &address)?;
            fd
        } else {
            let fd = make(SockType::Stream, SockFlag::empty())?;
            alarm::aside(limit, || connect(fd.as_raw_fd(), &address))?;
            fd
        };
        Ok(Socket::new(fd, b"\0"))
    }

    fn new(fd: OwnedFd, ending: &'static [u8]) -> Socket {
        let limit = Duration::ZERO;
        Socket { fd, ending, limit }
    }

    pub fn ending(&self) -> &'static [u8] {
        self.ending
    }

    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn make(kind: SockType, flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        kind,
        SockFlag::SOCK_CLOEXEC | flags,
        None,
    )
}

/// One write is one line, which is written completely or not at all.
impl Write for Socket {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let whole;
        let bytes = if self.ending.is_empty() {
            line
        } else {
            whole = [line, self.ending].concat();
            &whole
        };
        let sent = until_taken(self.fd.as_fd(), self.limit, || {
            Ok(send(self.fd.as_raw_fd(), bytes, flags)?)
        })?;
        is_whole(sent, bytes)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line to a descriptor that may block and that other processes share, so that O_NONBLOCK must not be set. One
/// write, so that lines of several processes do not mix.
pub fn write_line(fd: BorrowedFd<'_>, line: &str, limit: Duration) -> io::Result<()> {
    if limit.is_zero() {
        // Another process may fill the pipe before the write, which then waits for the shortest alarm.
        wait_for_room(fd, limit)?;
    }
    let begin = Instant::now();
    let written = until_taken(fd, limit, || {
        let left = limit.saturating_sub(begin.elapsed());
        alarm::aside(left, || nix::unistd::write(fd, line.as_bytes()))
    })?;
    is_whole(written, line.as_bytes())
}

/// Repeats a write until the other end takes it, or until `limit` is over (`TimedOut`).
fn until_taken(
    fd: BorrowedFd<'_>,
    limit: Duration,
    mut write: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let begin = Instant::now();
    loop {
        match write() {
            Err(error) if is_passing(error.kind()) => {}
            result => return result,
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        wait_for_room(fd, left)?;
    }
}

fn is_passing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits until a write might succeed, until a signal, or until `limit` is over (`TimedOut`).
fn wait_for_room(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let wait = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], wait) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_whole(written: usize, line: &[u8]) -> io::Result<()> {
    if written < line.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The lines that a log takes, which refuses while `stopped`; and the time of the wait.
    fn send(way: &mut Way, stopped: bool, text: &str) -> (Vec<String>, Duration) {
        let (mut lines, mut waited) = (Vec::new(), Duration::ZERO);
        let write = |level: Level, message: &str, limit: Duration| {
            if stopped {
                waited += limit;
                return Err(io::ErrorKind::TimedOut.into());
            }
            lines.push(format!("{level:?} {message}"));
            Ok(())
        };
        way.send(Level::Info, text, write).unwrap_or_default();
        (lines, waited)
    }

    #[test]
    fn lines_that_are_dropped_are_counted_and_the_count_comes_first() {
        let mut way = Way::NEW;
        assert_eq!(send(&mut way, false, "a").0, ["Info a"]);
        for text in ["b", "c", "d"] {
            assert_eq!(send(&mut way, true, text).0, [""; 0]);
        }
        let dropped = "Warning warning: 3 log lines were dropped";
        assert_eq!(send(&mut way, false, "e").0, [dropped, "Info e"]);
        assert_eq!(send(&mut way, false, "f").0, ["Info f"]);
        send(&mut way, true, "g");
        way.forget_dropped();
        assert_eq!(send(&mut way, false, "h").0, ["Info h"]);
    }

    #[test]
    fn patience_is_spent_once() {
        let mut way = Way::NEW;
        way.patiently(|limit| assert_eq!(limit, PATIENCE));
        way.patiently(|_| std::thread::sleep(Duration::from_millis(20)));
        way.patiently(|limit| assert!(limit <= PATIENCE - Duration::from_millis(20)));
        way.patience = Duration::ZERO;
        assert_eq!(send(&mut way, true, "a").1, Duration::ZERO);
    }

    #[test]
    fn a_stream_gets_lines_that_end_in_a_nul() {
        let path = std::env::temp_dir().join(format!("qmqpd-way-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let not_a_stream = Socket::datagram(&path).unwrap_err();
        assert_eq!(not_a_stream.raw_os_error(), Some(Errno::EPROTOTYPE as i32));
        let mut socket = Socket::stream(&path, Duration::ZERO).unwrap();
        std::fs::remove_file(&path).unwrap();
        for line in ["one", "two"] {
            assert_eq!(socket.write(line.as_bytes()).unwrap(), 3);
        }
        drop(socket);
        let mut said = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"one\0two\0");
    }
}
