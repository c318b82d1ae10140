//! The question of a child to the process that accepts: may the client that a proxy names have one more connection?
//!
//! The child reads the header of the PROXY protocol, and does not count. The process that accepts counts, and reads
//! neither clients nor proxies: it reads the child's question, an address of fixed length, and never waits for one.
//! There is no question if no client is counted, or if the socket gives the client's address. Counting is left to
//! `service::accept`.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::session::Busy;
use crate::sys::{ignore, socket};

/// The child's limit for the answer. The process that accepts may be busy or stopped.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The client may have the connection, or not.
const YES: u8 = b'y';
const NO: u8 = b'n';

/// The child's end.
#[derive(Debug)]
pub struct Asker(OwnedFd);

/// The end of the process that accepts.
#[derive(Debug)]
pub struct Question(OwnedFd);

/// The state of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    NotYet,
    /// About the client with this address.
    About(IpAddr),
    /// The child has ended, or will not ask.
    Never,
}

/// Both ends, made before the child. They carry records, so that a question arrives whole or not at all.
pub fn pair() -> io::Result<(Asker, Question)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((Asker(theirs), Question(ours)))
}

impl Asker {
    /// Whether the client at `address` may have this connection. If the process that accepts has ended, the answer is
    /// yes: the next process does not count the children of an earlier one.
    pub fn ask(self, address: IpAddr) -> Result<(), Busy> {
        let fd = self.0.as_fd();
        let mut answer = [YES];
        let answered = socket::send_now(fd, &bytes_of(address))
            .and_then(|_| socket::peek(fd, &mut answer, ANSWER_LIMIT));
        match answered.map_err(|error| error.kind()) {
            Ok(0) | Err(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            Ok(_) if answer == [YES] => Ok(()),
            Ok(_) => Err(Busy::Share(address.to_canonical())),
            Err(_) => Err(Busy::Uncounted(address.to_canonical())),
        }
    }
}

impl Question {
    /// The question that has arrived. Does not wait.
    pub fn arrived(&self) -> Asked {
        let mut bytes = [0; 16];
        match socket::read_arrived(self.0.as_fd(), &mut bytes) {
            Ok(16) => Asked::About(IpAddr::from(bytes).to_canonical()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Asked::NotYet,
            Ok(_) | Err(_) => Asked::Never,
        }
    }

    /// Answers. The child may have ended, which is no error.
    pub fn answer(self, may: bool) {
        let answer = if may { YES } else { NO };
        ignore(socket::send_now(self.0.as_fd(), &[answer]));
    }
}

impl AsFd for Question {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The bytes of the IPv6 form: an IPv4 address is ::ffff:a.b.c.d.
fn bytes_of(address: IpAddr) -> [u8; 16] {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.octets()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_question_is_answered() {
        crate::sys::alarm::init().unwrap();
        for (address, may) in [("192.0.2.7", true), ("2001:db8::7", false)] {
            let address: IpAddr = address.parse().unwrap();
            let (asker, question) = pair().unwrap();
            assert_eq!(question.arrived(), Asked::NotYet);
            let child = thread::spawn(move || asker.ask(address));
            while question.arrived() != Asked::About(address) {
                thread::yield_now();
            }
            question.answer(may);
            let expected = if may {
                Ok(())
            } else {
                Err(Busy::Share(address))
            };
            assert_eq!(child.join().unwrap(), expected);
        }
    }

    #[test]
    fn a_child_that_ends_never_asks() {
        let (asker, question) = pair().unwrap();
        drop(asker);
        assert_eq!(question.arrived(), Asked::Never);
        let (asker, question) = pair().unwrap();
        socket::send_now(asker.0.as_fd(), b"too short").unwrap();
        assert_eq!(question.arrived(), Asked::Never);
    }

    #[test]
    fn a_process_that_has_gone_counts_no_more() {
        crate::sys::alarm::init().unwrap();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let (asker, question) = pair().unwrap();
        drop(question);
        assert_eq!(asker.ask(address), Ok(()));
        for is_read in [true, false] {
            let (asker, question) = pair().unwrap();
            let child = thread::spawn(move || asker.ask(address));
            assert!(socket::wait_for_input(question.as_fd(), Duration::from_secs(60)).unwrap());
            assert!(!is_read || question.arrived() == Asked::About(address));
            drop(question);
            assert_eq!(child.join().unwrap(), Ok(()));
        }
    }
}
