//! Logs that take no lines.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::unistd::{pipe2, read, write};

/// A pipe: its end to read from, and one to write to. It takes nothing more.
pub fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (output, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
    set_flags(&input, OFlag::O_NONBLOCK);
    let full = std::iter::repeat_with(|| write(&input, &[b'x'; 4096])).find_map(Result::err);
    assert_eq!(full, Some(Errno::EAGAIN));
    set_flags(&input, OFlag::empty());
    (output, input)
}

fn set_flags(fd: &OwnedFd, flags: OFlag) {
    fcntl(fd, FcntlArg::F_SETFL(flags)).unwrap();
}

/// What is in a pipe, without waiting for more; the pipe is empty then.
pub fn drain(output: &OwnedFd) -> Vec<u8> {
    set_flags(output, OFlag::O_NONBLOCK);
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = read(output, &mut piece) {
        all.extend_from_slice(&piece[..length]);
    }
    all
}

/// A daemon that takes datagrams, and has as many as it takes.
pub fn deaf_datagram(path: &Path) -> UnixDatagram {
    let daemon = UnixDatagram::bind(path).unwrap();
    fill_datagram(path);
    daemon
}

/// Sends a daemon as many datagrams as it takes.
pub fn fill_datagram(path: &Path) {
    // Each sender has room of its own; what is full in the end is the daemon's.
    let fill = || {
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(path).unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.send(b"x").is_ok()
    };
    while fill() {}
}

/// A daemon that takes connections, and has as many as may wait for it: itself and they.
pub fn full_listener(path: &Path) -> Vec<OwnedFd> {
    let address = UnixAddr::new(path).unwrap();
    let make = |flags| {
        let flags = SockFlag::SOCK_CLOEXEC | flags;
        socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap()
    };
    let listener = make(SockFlag::empty());
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut all = vec![listener];
    loop {
        let client = make(SockFlag::SOCK_NONBLOCK);
        if connect(client.as_raw_fd(), &address).is_err() {
            return all;
        }
        all.push(client);
    }
}
