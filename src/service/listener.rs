//! The sockets on which a launcher listens, and the connections that they give.
//!
//! Follows `tests/spec/master.md`, section 5. When to accept, and what to do with a connection, is left to
//! `service::master` and `service::accept`.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::options::Transport;
use crate::session::{self, Busy};
use crate::sys::ignore;

use super::pass;

/// A listening socket of the service.
#[derive(Debug)]
pub enum Listener {
    Inet(TcpListener),
    Unix(UnixListener),
    Pass(UnixListener),
}

/// An accepted connection.
#[derive(Debug)]
pub enum Connection {
    /// The client's own connection, and the client's address if it has one.
    Direct(OwnedFd, Option<IpAddr>),
    /// A connection on which a program passes the client's connection.
    Pass(OwnedFd),
}

impl Listener {
    /// The listening socket `fd` of a `transport` service.
    pub fn new(transport: Transport, fd: OwnedFd) -> Listener {
        match transport {
            Transport::Inet => Listener::Inet(fd.into()),
            Transport::Unix => Listener::Unix(fd.into()),
            Transport::Pass => Listener::Pass(fd.into()),
        }
    }

    /// Accepts a waiting connection. `None` if another process was quicker, or if the client has gone.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        let accepted = match self {
            Listener::Inet(socket) => socket
                .accept()
                .map(|(s, from)| Connection::Direct(s.into(), Some(from.ip()))),
            Listener::Unix(socket) => socket
                .accept()
                .map(|(s, _)| Connection::Direct(s.into(), None)),
            Listener::Pass(socket) => socket.accept().map(|(s, _)| Connection::Pass(s.into())),
        };
        let connection = match accepted {
            Ok(connection) => connection,
            Err(error) if is_passing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let (Listener::Inet(_), Connection::Direct(fd, _)) = (self, &connection) {
            // Detects a client whose machine vanishes. The deadlines end the session in any case.
            ignore(setsockopt(fd, sockopt::KeepAlive, &true));
        }
        Ok(Some(connection))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Inet(socket) => socket.as_fd(),
            Listener::Unix(socket) | Listener::Pass(socket) => socket.as_fd(),
        }
    }
}

impl Connection {
    /// The client's address, if this is the client's own connection and comes from the network.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Connection::Direct(_, address) => *address,
            Connection::Pass(_) => None,
        }
    }

    /// Closes the connection. A client on its own connection is told why.
    pub fn turn_away(&self, busy: Busy) {
        match self {
            Connection::Direct(client, _) => session::turn_away(client, busy),
            Connection::Pass(_) => {}
        }
    }

    /// The client's own connection. A `pass` connection has to be waited for; its errors are logged.
    pub fn into_client(self) -> io::Result<OwnedFd> {
        match self {
            Connection::Direct(fd, _) => Ok(fd),
            Connection::Pass(fd) => pass::receive(fd),
        }
    }
}

/// Whether accept failed for a reason that concerns one connection and not the listening socket: another process took
/// the connection, or the network took it back.
fn is_passing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::EAGAIN
                | Errno::ECONNREFUSED
                | Errno::ECONNRESET
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::EINTR
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::ENOTCONN
                | Errno::ENOBUFS
                | Errno::ECONNABORTED
                | Errno::EPROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn no_waiting_client_is_no_error() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::Inet(socket);
        assert!(listener.accept().unwrap().is_none());
        let _client = TcpStream::connect(address).unwrap();
        let connection = listener.accept().unwrap().unwrap();
        let client = connection.into_client().unwrap();
        assert_eq!(
            nix::sys::socket::getsockopt(&client, sockopt::KeepAlive),
            Ok(true)
        );
    }

    #[test]
    fn an_error_of_the_socket_itself_is_one() {
        for (errno, passing) in [(Errno::EMFILE, false), (Errno::EPROTO, true)] {
            assert_eq!(is_passing(&errno.into()), passing, "{errno}");
        }
    }
}
