//! The client's end of the session: where its bytes come from and where the reply goes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::alarm::{self, Bounded};
use crate::sys::{ignore, socket};
use crate::wire::netstring::Error;
use crate::wire::qmqp::{Fault, Phase};

use super::reply::Reply;

/// How much input is dropped after an early reply, and for how long: enough for a client that sends a large message to
/// its end before it reads, too little to keep a process for one that means harm.
pub const DRAIN_BYTES: usize = 64 * 1024 * 1024;
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

/// How long nothing may come before the client is no longer one that is still sending. Whole seconds, as alarms are.
pub const DRAIN_SILENCE: Duration = Duration::from_secs(2);

/// Bytes dropped at a time after an early reply, and after an acceptance, when few clients have any more to say.
const DROP_SIZE: usize = 64 * 1024;
const LEFTOVER_SIZE: usize = 1024;

/// One direction of a connection.
pub trait Stream: Read + Write {
    /// Waits until there is something to read (true) or nothing more will come (false), and reads nothing.
    fn wait_for_input(&mut self) -> io::Result<bool>;

    /// Reads what has arrived, without waiting for more.
    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// From here on each wait lasts `limit` at most.
    fn set_limit(&mut self, limit: Duration);

    /// Tells the other end that nothing more will come. Where this is no socket, the stream's being dropped is the end
    /// that the client sees.
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
    /// Until the reply has been sent.
    output: Option<S>,
}

impl Client {
    /// Each wait for the client, in either direction, lasts `limit` at most.
    pub fn new((input, output): (OwnedFd, OwnedFd), limit: Duration) -> Client {
        Client::on(Bounded { fd: input, limit }, Bounded { fd: output, limit })
    }
}

impl<S: Stream> Client<S> {
    /// A client whose bytes come from `input`, and to whom `output` leads.
    pub fn on(input: S, output: S) -> Client<S> {
        Client {
            input,
            output: Some(output),
        }
    }

    /// Waits until there is something to read, without reading it.
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

    /// Writes the whole reply, in one call where the system takes it, and ends the output: whoever reads until the end has
    /// everything.
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
    /// Closing a socket while there is input that nobody has read makes the kernel send a reset, and that can cost the
    /// client the reply. Unlike Postfix, what still comes is read and dropped: after an early reply until the client
    /// has finished, within [`DRAIN_BYTES`], [`DRAIN_TIME`] and [`DRAIN_SILENCE`]; after an acceptance, and where no
    /// wait would end, only what has arrived already (`tests/spec/differences.md`, 7).
    pub fn drain(self, reply: &Reply) {
        self.drop_input(reply.is_accepted() || alarm::is_forbidden());
    }

    /// Ends the session after a reply, for a client that is not waited for: what has arrived is dropped.
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

    /// A client that always has more to say.
    struct Endless<'a> {
        /// Bytes that were waited for, and bytes that were taken without.
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

    /// How many bytes are dropped after `reply`: those that were waited for, and those that had arrived. Then the limit
    /// of each wait.
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
