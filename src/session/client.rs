//! The connection to the client: the source of its bytes, and the destination of the reply.
//!
//! Follows `tests/spec/qmqp.md`, sections 4 and 5. The bytes of a request are left to `wire`, the texts of replies to
//! `session::answer`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::alarm::{self, Bounded};
use crate::sys::{ignore, socket};
use crate::wire::netstring::Error;
use crate::wire::qmqp::{Fault, Phase};

use super::reply::Reply;

/// The amount of input that is dropped after an early reply, and the time for it: enough for a client that sends a
/// large message to its end before it reads, and a limit for a hostile client.
pub const DRAIN_BYTES: usize = 64 * 1024 * 1024;
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The silence after which a client counts as having finished. Whole seconds, because alarms have whole seconds.
pub const DRAIN_SILENCE: Duration = Duration::from_secs(2);

/// The bytes dropped at a time after an early reply, and the most that are dropped after an acceptance.
const DROP_SIZE: usize = 64 * 1024;
const LEFTOVER_SIZE: usize = 1024;

/// One direction of a connection.
pub trait Stream: Read + Write {
    /// Waits for input without reading it. True if there is input, false at its end.
    fn wait_for_input(&mut self) -> io::Result<bool>;

    /// Reads the input that has arrived, without waiting.
    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Limits each following wait to `limit`.
    fn set_limit(&mut self, limit: Duration);

    /// Ends the output. If the stream is no socket, closing it is the end that the client sees.
    fn shutdown_write(&mut self);
}

impl Stream for Bounded {
    fn wait_for_input(&mut self) -> io::Result<bool> {
        socket::wait_for_input(self.fd.as_fd(), self.limit)
    }

    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::read_arrived(self.fd.as_fd(), buffer)
    }

    fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn shutdown_write(&mut self) {
        ignore(socket::shutdown_write(self.fd.as_fd()));
    }
}

/// A client on one stream for each direction, often the same socket twice.
#[derive(Debug)]
pub struct Client<S = Bounded> {
    input: S,
    /// `None` after the reply.
    output: Option<S>,
}

impl Client {
    /// A client on two descriptors, with `limit` for each wait in either direction.
    pub fn new((input, output): (OwnedFd, OwnedFd), limit: Duration) -> Client {
        Client::on(Bounded { fd: input, limit }, Bounded { fd: output, limit })
    }
}

impl<S: Stream> Client<S> {
    pub fn on(input: S, output: S) -> Client<S> {
        Client {
            input,
            output: Some(output),
        }
    }

    /// Waits for the first byte without reading it.
    ///
    /// Unlike Postfix, which opens the queue before it reads: a port probe that connects and leaves costs the queue
    /// nothing (`tests/spec/differences.md`, 10).
    pub fn wait_for_first_byte(&mut self) -> Result<(), Fault> {
        let fault = |error| Fault::Netstring(error, Phase::Header);
        match self.input.wait_for_input() {
            Ok(true) => Ok(()),
            Ok(false) => Err(fault(Error::Disconnect)),
            Err(error) => Err(fault(error.into())),
        }
    }

    /// Writes the whole reply, in one call if the system accepts it, and ends the output. A client that reads to the
    /// end has the whole reply.
    pub fn send(&mut self, reply: &Reply) -> Result<(), Error> {
        let Some(mut output) = self.output.take() else {
            return Err(Error::Disconnect);
        };
        output.write_all(&reply.encode())?;
        output.shutdown_write();
        Ok(())
    }

    /// Ends the session after a reply.
    ///
    /// If a socket is closed while it has unread input, the kernel sends a reset, and the client can lose the reply.
    /// Unlike Postfix, further input is read and dropped: after an early reply until the client has finished, within
    /// [`DRAIN_BYTES`], [`DRAIN_TIME`] and [`DRAIN_SILENCE`]; after an acceptance, and if no wait would end, only the
    /// input that has arrived (`tests/spec/differences.md`, 7).
    pub fn drain(self, reply: &Reply) {
        self.drop_input(reply.is_accepted() || alarm::is_forbidden());
    }

    /// Ends the session after a reply without waiting for the client: drops the input that has arrived.
    pub fn drop_arrived(self) {
        self.drop_input(true);
    }

    fn drop_input(mut self, arrived_only: bool) {
        let input = &mut self.input;
        let size = if arrived_only {
            LEFTOVER_SIZE
        } else {
            DROP_SIZE
        };
        let mut buffer = vec![0; size];
        let end = Instant::now() + DRAIN_TIME;
        let mut dropped = 0;
        while dropped < DRAIN_BYTES {
            let arrived = if arrived_only {
                input.read_arrived(&mut buffer)
            } else {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                input.set_limit(left.min(DRAIN_SILENCE));
                input.read(&mut buffer)
            };
            match arrived {
                Ok(0) | Err(_) => return,
                Ok(n) => dropped += n,
            }
        }
    }
}

impl<S: Read> Read for Client<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A client that never stops sending.
    struct Endless<'a> {
        /// The bytes that were waited for, and the bytes that were taken without waiting.
        read: &'a Cell<usize>,
        arrived: &'a Cell<usize>,
        limit: &'a Cell<Duration>,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.read.set(self.read.get() + buffer.len());
            Ok(buffer.len())
        }
    }

    impl Write for Endless<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Endless<'_> {
        fn wait_for_input(&mut self) -> io::Result<bool> {
            Ok(true)
        }

        fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.arrived.set(self.arrived.get() + buffer.len());
            Ok(buffer.len())
        }

        fn set_limit(&mut self, limit: Duration) {
            self.limit.set(limit);
        }

        fn shutdown_write(&mut self) {}
    }

    /// The bytes that are dropped after `reply`, with and without a wait, and the limit of each wait.
    fn dropped_after(reply: &Reply) -> (usize, usize, Duration) {
        let (read, arrived) = (Cell::new(0), Cell::new(0));
        let limit = Cell::new(Duration::MAX);
        let end = || Endless {
            read: &read,
            arrived: &arrived,
            limit: &limit,
        };
        Client::on(end(), end()).drain(reply);
        (read.get(), arrived.get(), limit.get())
    }

    #[test]
    fn a_client_that_never_ends_is_read_64_mib_after_a_reply_and_no_further() {
        let refused = dropped_after(&Reply::refused("x"));
        assert_eq!(refused, (67_108_864, 0, Duration::from_secs(2)));
        let accepted = dropped_after(&Reply::accepted("x"));
        assert_eq!(accepted, (0, 67_108_864, Duration::MAX));
    }
}
