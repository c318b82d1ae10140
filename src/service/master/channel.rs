//! The channel by which master(8) learns whether this process can take a client.
//!
//! Follows `tests/spec/master.md`, section 4.1. When to send is left to `service::master`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use crate::exit::Fatal;
use crate::log;

/// What the process tells master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum State {
    /// The process serves a client: the next client needs another process.
    Taken = 0,
    Available = 1,
}

/// The channel, and the generation by which master knows this process.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    pid: u32,
    generation: u32,
}

impl Channel {
    /// The channel `fd` of the process whose environment has `generation`.
    pub fn new(fd: OwnedFd, generation: Option<OsString>) -> Result<Channel, Fatal> {
        Ok(Channel {
            fd,
            pid: std::process::id(),
            generation: read_generation(generation)?,
        })
    }

    /// Sends one message: process id, generation and state, four bytes each in the machine's byte order. An error means
    /// that master is gone or has ended this generation.
    pub fn tell(&self, state: State) -> io::Result<()> {
        log::debug!(1, "master_notify: status {}", state as i32);
        let mut message = [0; 12];
        let (pid, rest) = message.split_at_mut(4);
        let (generation, avail) = rest.split_at_mut(4);
        pid.copy_from_slice(&self.pid.to_ne_bytes());
        generation.copy_from_slice(&self.generation.to_ne_bytes());
        avail.copy_from_slice(&(state as i32).to_ne_bytes());
        // Shorter than PIPE_BUF, and so written completely or not at all.
        write(&self.fd, &message).map(drop).map_err(io::Error::from)
    }

    /// Whether master is gone or has ended this generation. Only master's end can be read here: no process writes to
    /// the channel in this direction.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// master writes the number in octal. A process that master did not start has generation 0.
fn read_generation(text: Option<OsString>) -> Result<u32, Fatal> {
    let Some(text) = text else {
        return Ok(0);
    };
    let text = text.to_string_lossy();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(&text, 8) {
        Ok(generation) if digits => {
            log::debug!(1, "process generation: {text} ({generation:o})");
            Ok(generation)
        }
        Ok(_) | Err(_) => Err(Fatal::Text(format!("bad generation: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_octal() {
        let read = |text: &str| read_generation(Some(OsString::from(text))).ok();
        assert_eq!(read("107"), Some(0o107));
        assert_eq!(read("37777777777"), Some(u32::MAX));
        for text in ["", "108", "0x7", "-1", "+7", "40000000000", "7 "] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_message_is_twelve_bytes() {
        let (ours, fd) = nix::unistd::pipe().unwrap();
        let channel = Channel {
            fd,
            pid: 17266,
            generation: 71,
        };
        channel.tell(State::Available).unwrap();
        let mut message = [0; 13];
        assert_eq!(nix::unistd::read(&ours, &mut message), Ok(12));
        let field = |at: usize| i32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!((field(0), field(4), field(8)), (17266, 71, 1));
    }

    #[test]
    fn a_master_that_is_gone_is_an_error_not_a_signal() {
        let (ours, fd) = nix::unistd::pipe().unwrap();
        drop(ours);
        let channel = Channel {
            fd,
            pid: 1,
            generation: 0,
        };
        let error = channel.tell(State::Taken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
