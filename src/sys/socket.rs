//! Socket functions that nix offers only by descriptor number, with limits for their waits.
//!
//! Follows connect(2), recv(2) and unix(7). The protocols are left to the callers.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike,
    UnixAddr, recv, recvmsg, send, shutdown, socket,
};

use crate::sys::alarm;

pub fn connect_stream(path: &Path, limit: Duration) -> io::Result<OwnedFd> {
    let stream = unconnected_stream()?;
    connect(&stream, path, limit)?;
    Ok(stream)
}

/// A UNIX-domain stream socket, for a process that will not be able to make one.
pub fn unconnected_stream() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// Connects to `path`. A listener with a full queue makes the caller wait, for `limit` at most (`TimedOut`).
pub fn connect(stream: &OwnedFd, path: &Path, limit: Duration) -> io::Result<()> {
    let address = UnixAddr::new(path)?;
    // An interrupted connect to a UNIX-domain socket has had no effect, and can be repeated.
    alarm::bounded(limit, || socket::connect(stream.as_raw_fd(), &address))
}

/// The length of the address of `path` for connect(2).
pub fn address_length(path: &Path) -> io::Result<u32> {
    Ok(UnixAddr::new(path)?.len())
}

/// Connects to `path`, sends `bytes` and closes, without waiting: `WouldBlock` if the listener's queue is full.
pub fn notify(path: &Path, bytes: &[u8]) -> io::Result<usize> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(nix::unistd::write(&stream, bytes)?)
}

/// Waits until `fd` has input (true) or has ended (false). Reads nothing.
pub fn wait_for_input(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut byte = [0];
    let peeked = alarm::bounded(limit, || {
        match recv(fd.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK) {
            Err(Errno::ENOTSOCK) => wait_for_pipe(fd),
            result => result,
        }
    });
    peeked.map(|n| n > 0)
}

/// A pipe that was closed without a byte has ended: POLLHUP without POLLIN.
fn wait_for_pipe(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE)?;
    let [polled] = fds;
    let readable = polled
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLIN));
    Ok(usize::from(readable))
}

/// Ends the output to the peer.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(fd.as_raw_fd(), Shutdown::Write)?)
}

/// Sends as much as the peer's buffer takes, without waiting.
pub fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    Ok(send(fd.as_raw_fd(), bytes, flags)?)
}

/// Reads what has arrived, without waiting: `WouldBlock` if nothing has.
pub fn read_arrived(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// Waits for input on a socket, for `limit` at most (`TimedOut`), and copies it to `buffer` without taking it. 0 is the
/// end.
pub fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
    alarm::bounded(limit, || recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_PEEK))
}

/// Receives one descriptor with one byte from the peer on a UNIX-domain socket.
pub fn receive_descriptor(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = cmsg_space!(RawFd);
    let number = alarm::bounded(limit, || {
        let mut pieces = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<UnixAddr>(
            fd.as_raw_fd(),
            &mut pieces,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                return Ok(numbers.first().copied());
            }
        }
        Ok(None)
    })?;
    match number {
        // SAFETY: the kernel has just made this descriptor for the message, and it has no other owner. There is room
        // for one, so none is lost.
        Some(number) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
