//! Connections that another program has accepted: `pass` services, as behind postscreen(8).
//!
//! The program connects, sends one byte with the client's descriptor, then an attribute list about the client. The
//! descriptor alone counts: who the client is, its own socket says. Authority: section 5 of the master page of the
//! specification.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::log;
use crate::sys::alarm::Bounded;
use crate::sys::socket;
use crate::wire::attr;

/// How long the program may take for the descriptor, and for each piece of the list.
const PASS_LIMIT: Duration = Duration::from_secs(100);

/// Receives the client's connection on `fd`. Why there is none has been logged.
pub fn receive(fd: OwnedFd) -> io::Result<OwnedFd> {
    receive_within(fd, PASS_LIMIT)
}

fn receive_within(fd: OwnedFd, limit: Duration) -> io::Result<OwnedFd> {
    let client = socket::receive_descriptor(fd.as_fd(), limit).inspect_err(|error| {
        log::warning(format_args!(
            "pass_accept_attr: cannot receive connection descriptor: {}",
            log::error_text(error)
        ));
    })?;
    let attributes = attr::read(&mut Bounded { fd, limit });
    match attributes {
        Ok(_) => Ok(client),
        Err(error) => {
            log::warning(format_args!(
                "pass_accept_attr: cannot receive connection attributes: {}",
                describe(&error)
            ));
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

fn describe(error: &attr::Error) -> String {
    match error {
        attr::Error::Closed | attr::Error::Truncated(_) => "the connection was closed".to_owned(),
        attr::Error::TooLong => "the list does not end".to_owned(),
        attr::Error::Io(error) => log::error_text(error),
    }
}
