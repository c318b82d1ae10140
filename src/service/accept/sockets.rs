//! The listening sockets that a launcher passes to `--accept`.
//!
//! systemd passes them from descriptor 3 on and announces them in the environment (sd_listen_fds(3)); inetd and xinetd
//! put one on descriptor 0 (`wait`). The program binds no socket: the launcher decides on the port and its permissions.

use std::fmt::{self, Display};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use crate::exit::Fatal;
use crate::log;
use crate::options::Transport;
use crate::service::listener::Listener;
use crate::sys::inherit;

/// The first descriptor that systemd passes.
const FIRST_PASSED: RawFd = 3;

/// systemd's variables: the number of sockets, and the process that they are for.
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_PID: &str = "LISTEN_PID";

/// Why there is no listening socket. The launcher's configuration is at fault.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    /// Neither the environment nor descriptor 0 gives a listening socket.
    Nowhere,
    /// systemd has passed sockets to another process, which has started this one.
    ForAnother { pid: String },
    /// A descriptor that systemd announced is not open.
    Closed(RawFd, Errno),
    /// A passed descriptor is not a listening socket.
    NoListener(RawFd),
    /// The socket is neither an Internet nor a UNIX-domain socket.
    Foreign(RawFd),
}

impl Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--accept: ")?;
        match self {
            Missing::Nowhere => f.write_str(
                "no listening socket: a launcher has to pass one (systemd: a .socket unit with Accept=no; \
                 inetd: wait; xinetd: wait = yes)",
            ),
            Missing::ForAnother { pid } => write!(
                f,
                "no listening socket: systemd has passed its sockets to process {pid}, and this is process {}: \
                 a shell between the two has to use exec",
                std::process::id()
            ),
            Missing::Closed(number, errno) => {
                let why = log::errno_text(*errno);
                write!(f, "{LISTEN_FDS} announces descriptor {number}: {why}")
            }
            Missing::NoListener(number) => {
                write!(f, "descriptor {number} is not a listening stream socket")
            }
            Missing::Foreign(number) => write!(
                f,
                "descriptor {number} is neither an Internet nor a UNIX-domain socket"
            ),
        }
    }
}

/// Takes the sockets over before other descriptors can get their numbers, and closes all other inherited descriptors.
pub fn take() -> Result<Vec<Listener>, Fatal> {
    let passed = passed(&|name| std::env::var(name).ok());
    let mut taken = Ok(Vec::new());
    if let Passed::Here(count) = passed {
        taken = (FIRST_PASSED..FIRST_PASSED.saturating_add(count))
            .map(take_passed)
            .collect();
    }
    // Descriptors of this process itself are opened later.
    inherit::close_inherited();
    match passed {
        Passed::Here(_) => taken,
        Passed::None => on_input(Missing::Nowhere),
        Passed::ForAnother(pid) => on_input(Missing::ForAnother { pid }),
    }
    .map_err(Fatal::from_display)
}

fn take_passed(number: RawFd) -> Result<Listener, Missing> {
    let fd =
        inherit::inherited(number).map_err(|error| Missing::Closed(number, errno_of(&error)))?;
    listener(fd, number)
}

/// The announcement in the environment.
#[derive(Debug, PartialEq, Eq)]
enum Passed {
    Here(i32),
    /// For the process with this id.
    ForAnother(String),
    None,
}

/// Reads the announcement; `variable` looks up a variable of the environment.
fn passed(variable: &dyn Fn(&str) -> Option<String>) -> Passed {
    let count = variable(LISTEN_FDS).and_then(|count| count.parse().ok());
    match (count, variable(LISTEN_PID)) {
        (Some(count @ 1..), Some(pid)) if pid == std::process::id().to_string() => {
            Passed::Here(count)
        }
        (Some(1..), Some(pid)) => Passed::ForAnother(pid),
        _ => Passed::None,
    }
}

/// The socket on descriptor 0, or the reason `otherwise` if there is none.
fn on_input(otherwise: Missing) -> Result<Vec<Listener>, Missing> {
    if !listens(inherit::client_input()) {
        return Err(otherwise);
    }
    let fd = inherit::listening_input().map_err(|errno| Missing::Closed(0, errno))?;
    Ok(vec![listener(fd, 0)?])
}

fn listens(fd: impl AsFd) -> bool {
    getsockopt(&fd, sockopt::AcceptConn) == Ok(true)
        && getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream)
}

/// Makes the socket non-blocking, because a client that it has reported may be gone at the time of accept. The mode is
/// shared with the launcher, which does not accept connections on the socket.
fn listener(fd: OwnedFd, number: RawFd) -> Result<Listener, Missing> {
    if !listens(&fd) {
        return Err(Missing::NoListener(number));
    }
    let closed = |errno| Missing::Closed(number, errno);
    let own = getsockname::<SockaddrStorage>(fd.as_raw_fd()).map_err(closed)?;
    let transport = match own.family() {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Transport::Inet,
        Some(AddressFamily::Unix) => Transport::Unix,
        _ => return Err(Missing::Foreign(number)),
    };
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).map_err(closed)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(closed)?;
    Ok(Listener::new(transport, fd))
}

fn errno_of(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn sockets_are_passed_to_one_process_only() {
        let own = std::process::id().to_string();
        let other = (std::process::id() + 1).to_string();
        for (count, pid, expected) in [
            (Some("2"), Some(&own), Passed::Here(2)),
            (Some("1"), Some(&other), Passed::ForAnother(other.clone())),
            (Some("0"), Some(&own), Passed::None),
            (Some("-1"), Some(&own), Passed::None),
            (Some("x"), Some(&own), Passed::None),
            (Some("1"), None, Passed::None),
            (None, Some(&own), Passed::None),
        ] {
            let found = passed(&|name| match name {
                LISTEN_FDS => count.map(str::to_owned),
                _ => pid.cloned(),
            });
            assert_eq!(found, expected, "{count:?} {pid:?}");
        }
    }

    #[test]
    fn only_what_listens_for_streams_is_taken() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(listener(tcp.into(), 3), Ok(Listener::Inet(_))));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (connected, _other) = UnixStream::pair().unwrap();
        let datagram = UnixDatagram::unbound().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for fd in [udp.into(), connected.into(), datagram.into(), file.into()] {
            let refused = listener(fd, 3).err();
            assert_eq!(refused, Some(Missing::NoListener(3)));
        }
    }
}
