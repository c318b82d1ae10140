//! The client's end of the session: where its bytes come from and where the reply goes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::alarm::Bounded;
use crate::sys::socket;
use crate::wire::netstring::{Error, READ_SIZE};
use crate::wire::qmqp::{Fault, Phase};

use super::reply::Reply;

/// How much input is dropped after an early reply, and for how long: enough for a client that sends a large message to
/// its end before it reads, too little to keep a process for one that means harm.
pub const DRAIN_BYTES: usize = 64 * 1024 * 1024;
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A client on one descriptor for each direction, often the same socket twice.
#[derive(Debug)]
pub struct Client {
    input: Bounded,
    output: Bounded,
}

impl Client {
    /// Each wait for the client, in either direction, lasts `limit` at most.
    pub fn new((input, output): (OwnedFd, OwnedFd), limit: Duration) -> Client {
        Client {
            input: Bounded { fd: input, limit },
            output: Bounded { fd: output, limit },
        }
    }

    /// Waits until there is something to read, without reading it.
    ///
    /// Unlike Postfix, which opens the queue before it reads: a port probe that connects and leaves costs the queue nothing.
    pub fn wait_for_first_byte(&mut self) -> Result<(), Fault> {
        let fault = |error| Fault::Netstring(error, Phase::Header);
        match socket::wait_for_input(self.input.fd.as_fd(), self.input.limit) {
            Ok(true) => Ok(()),
            Ok(false) => Err(fault(Error::Disconnect)),
            Err(error) => Err(fault(error.into())),
        }
    }

    /// Writes the whole reply, in one call where the system takes it.
    pub fn send(&mut self, reply: &Reply) -> Result<(), Error> {
        Ok(self.output.write_all(&reply.encode())?)
    }

    /// Ends the session after a reply.
    ///
    /// Closing a socket while there is input that nobody has read makes the kernel send a reset, and that can cost the
    /// client the reply. Unlike Postfix, the write side is closed at once and what still comes is read and dropped: after
    /// an early reply until the client has finished, within [`DRAIN_BYTES`] and [`DRAIN_TIME`]; after an acceptance only what has
    /// arrived already.
    pub fn finish(self, reply: &Reply) {
        let Client { mut input, output } = self;
        // Not a socket: its being closed is the end that the client sees.
        let _closed = socket::shutdown_write(output.fd.as_fd()).is_ok();
        drop(output);
        let mut buffer = vec![0; READ_SIZE];
        let end = Instant::now() + DRAIN_TIME;
        let mut dropped = 0;
        while dropped < DRAIN_BYTES {
            let arrived = if reply.is_accepted() {
                socket::read_arrived(input.fd.as_fd(), &mut buffer)
            } else {
                input.limit = end.saturating_duration_since(Instant::now());
                if input.limit.is_zero() {
                    return;
                }
                input.read(&mut buffer)
            };
            match arrived {
                Ok(0) | Err(_) => return,
                Ok(n) => dropped += n,
            }
        }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}
