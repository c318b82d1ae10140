//! Bytes that come a few at a time, with interruptions.

use std::io::{self, Read};

/// Gives out at most `step` bytes a read, and interrupts every other one.
#[derive(Debug)]
pub struct Steps<'a> {
    bytes: &'a [u8],
    step: usize,
    interrupted: bool,
}

impl<'a> Steps<'a> {
    pub fn new(bytes: &'a [u8], step: usize) -> Steps<'a> {
        Steps {
            bytes,
            step,
            interrupted: false,
        }
    }
}

impl Read for Steps<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = self.step.min(buffer.len());
        self.bytes.read(&mut buffer[..n])
    }
}
