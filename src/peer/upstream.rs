//! Reads the client that a proxy names, in the PROXY protocol's header at the beginning of a connection.
//!
//! Reads the header and no byte after it. The format is left to `wire::proxy_header`; whether the connection is a
//! proxy's, to the caller. Follows postconf(5), `smtpd_upstream_proxy_protocol` and `smtpd_upstream_proxy_timeout`,
//! whose meaning this program's parameters have.

use std::fmt::{self, Display};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername, getsockopt, sockopt};

use crate::log;
use crate::sys::socket;
use crate::wire::proxy_header::{self, BINARY_LIMIT, Header, Scan};

use super::Error;

/// Why the header names no client.
#[derive(Debug)]
pub enum Fault {
    /// The bytes are no header.
    Header(proxy_header::Fault),
    /// The connection ended before the header did.
    Lost,
    /// The header was not complete in time.
    Late,
    /// The connection cannot be read.
    Failed(io::Error),
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Header(fault) => fault.fmt(f),
            Fault::Lost => f.write_str("lost connection while receiving PROXY header"),
            Fault::Late => f.write_str("timeout while receiving PROXY header"),
            Fault::Failed(error) => {
                let why = log::error_text(error);
                write!(f, "cannot receive PROXY header: {why}")
            }
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        if error.kind() == io::ErrorKind::TimedOut {
            Fault::Late
        } else {
            Fault::Failed(error)
        }
    }
}

/// The other end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherEnd {
    Address(IpAddr),
    /// It is not on the Internet.
    Elsewhere,
    /// The Internet connection has been reset, for example by a proxy's health check.
    Gone,
}

/// The other end of the socket `fd`; an error for a listening socket.
pub fn other_end(fd: BorrowedFd<'_>) -> Result<OtherEnd, Error> {
    let peer = match getpeername::<SockaddrStorage>(fd.as_raw_fd()) {
        Ok(peer) => peer,
        Err(Errno::ENOTCONN) if getsockopt(&fd, sockopt::AcceptConn) == Ok(true) => {
            return Err(Error::Listening);
        }
        Err(Errno::ENOTCONN) => return Ok(OtherEnd::Gone),
        Err(_) => return Ok(OtherEnd::Elsewhere),
    };
    let v4: Option<IpAddr> = peer.as_sockaddr_in().map(|sin| sin.ip().into());
    let address = v4.or_else(|| peer.as_sockaddr_in6().map(|sin6| sin6.ip().into()));
    Ok(address.map_or(OtherEnd::Elsewhere, |address| {
        OtherEnd::Address(address.to_canonical())
    }))
}

/// Reads the header from a socket within `limit`.
pub fn read_header(fd: BorrowedFd<'_>, limit: Duration) -> Result<Header, Fault> {
    let end = Instant::now() + limit;
    let mut buffer = vec![0; BINARY_LIMIT];
    let mut taken = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        let free = buffer.get_mut(taken..).unwrap_or_default();
        let arrived = socket::peek(fd, free, left)?;
        if arrived == 0 {
            return Err(Fault::Lost);
        }
        let bytes = buffer.get(..taken + arrived).unwrap_or_default();
        let scan = proxy_header::scan(bytes).map_err(Fault::Header)?;
        let length = match scan {
            Scan::Partial => taken + arrived,
            Scan::Whole { length, .. } => length,
        };
        // Takes from the socket what belongs to the header, and was only peeked at before.
        let seen = buffer.get_mut(taken..length).unwrap_or_default();
        taken += socket::read_arrived(fd, seen)?;
        if let Scan::Whole { header, .. } = scan {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 628\r\n";
    const LIMIT: Duration = Duration::from_secs(5);

    fn client() -> Header {
        let address = [192, 0, 2, 7].into();
        let port = 56324;
        Header::Client { address, port }
    }

    #[test]
    fn nothing_is_read_beyond_the_header() {
        crate::sys::alarm::init().unwrap();
        for size in [1, 5, LINE.len(), LINE.len() + 6] {
            let (mut proxy, mut server) = UnixStream::pair().unwrap();
            let bytes = [LINE, b"3:abc,"].concat();
            let sender = thread::spawn(move || {
                for piece in bytes.chunks(size) {
                    proxy.write_all(piece).unwrap();
                    thread::yield_now();
                }
            });
            assert_eq!(read_header(server.as_fd(), LIMIT).unwrap(), client());
            sender.join().unwrap();
            let mut rest = String::new();
            server.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "3:abc,", "{size} bytes at a time");
        }
    }

    #[test]
    fn a_header_that_breaks_off_is_none() {
        crate::sys::alarm::init().unwrap();
        let (mut proxy, server) = UnixStream::pair().unwrap();
        proxy.write_all(&LINE[..20]).unwrap();
        drop(proxy);
        let fault = read_header(server.as_fd(), LIMIT).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "lost connection while receiving PROXY header"
        );
    }
}
