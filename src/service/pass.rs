//! Connections that another program has accepted: `pass` services, as behind postscreen(8).
//!
//! The program connects, sends one byte with the client's descriptor, and then an attribute list about the client. Only
//! the descriptor is used: the client's socket gives its address. Follows `tests/spec/master.md`, section 5.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::log;
use crate::sys::alarm::Bounded;
use crate::sys::socket;
use crate::wire::attr;

/// The limit for the descriptor, and for each piece of the list.
const PASS_LIMIT: Duration = Duration::from_secs(100);

/// Receives the client's connection on `fd`. Logs an error.
pub fn receive(fd: OwnedFd) -> io::Result<OwnedFd> {
    receive_within(PASS_LIMIT, fd).inspect_err(|error| {
        log::warning!("pass_accept_attr: {error}");
    })
}

fn receive_within(limit: Duration, fd: OwnedFd) -> io::Result<OwnedFd> {
    let failed = |what: &str, why: &str| io::Error::other(format!("cannot receive {what}: {why}"));
    let client = socket::receive_descriptor(fd.as_fd(), limit)
        .map_err(|error| failed("file descriptor", &log::error_text(&error)))?;
    match attr::read(&mut Bounded { fd, limit }) {
        Ok(_) => Ok(client),
        Err(error) => Err(failed("connection attributes", &describe(&error))),
    }
}

fn describe(error: &attr::Error) -> String {
    match error {
        attr::Error::Closed | attr::Error::Truncated(_) => "unexpected end of file".to_owned(),
        attr::Error::TooLong => "the list does not end".to_owned(),
        attr::Error::Io(error) => log::error_text(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

    use super::*;

    /// The result for a program that sends these bytes, with or without a descriptor.
    fn passed(with_descriptor: bool, list: &[u8]) -> io::Result<OwnedFd> {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let (client, _other) = UnixStream::pair().unwrap();
        if with_descriptor {
            let fds = [client.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&fds)];
            let byte = [IoSlice::new(b"\0")];
            let flags = MsgFlags::empty();
            sendmsg::<UnixAddr>(theirs.as_raw_fd(), &byte, &control, flags, None).unwrap();
        }
        theirs.write_all(list).unwrap();
        drop(theirs);
        receive_within(Duration::from_secs(10), ours.into())
    }

    #[test]
    fn a_descriptor_and_a_list_are_a_client() {
        passed(true, b"\0").unwrap();
        passed(true, b"client_address\x00192.0.2.9\0\0").unwrap();
    }

    #[test]
    fn anything_less_is_an_error() {
        for (with_descriptor, list, missing) in [
            (
                true,
                &b""[..],
                "connection attributes: unexpected end of file",
            ),
            (
                true,
                b"client_address\x001",
                "connection attributes: unexpected end of file",
            ),
            (false, b"\0\0", "file descriptor: unexpected end of file"),
            (false, b"", "file descriptor: unexpected end of file"),
        ] {
            let error = passed(with_descriptor, list).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot receive {missing}"));
        }
    }
}
