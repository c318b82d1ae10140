//! Reads and writes netstrings: a decimal length, a colon, that many bytes, a comma.
//!
//! Follows <https://cr.yp.to/proto/netstrings.txt> and `tests/spec/qmqp.md`, section 3: leading zeros are allowed, and
//! a length without digits is zero. No memory is reserved for an announced length: data is returned in pieces as it
//! arrives.
//!
//! Unlike Postfix, a length has at most [`DIGIT_LIMIT`] digits, because zeros could come without end
//! (`tests/spec/differences.md`, 43).

use std::fmt::{self, Display};
use std::io::{self, Read};

use crate::sys::memory;

/// The longest [`Reader::block`], which is also the largest read, in bytes. For blocks of half the size or less the C
/// library's allocator keeps a stock of memory, which it has to clear. The missing 32 bytes are for the header of the
/// allocator, so that no block needs one page more.
pub const BLOCK_SIZE: usize = 256 * 1024 - 32;

/// The bytes of all other reads. Most requests are shorter, and each page of a buffer costs a page fault.
const BUFFER_SIZE: usize = 8 * 1024;

/// The largest length that can be written: a signed machine word, as in Postfix.
pub const LENGTH_LIMIT: u64 = i64::MAX as u64;

/// The most digits of a length with leading zeros: those of the largest 64-bit number, enough for clients that pad
/// lengths to a fixed width.
pub const DIGIT_LIMIT: usize = 20;

/// Why the client's bytes could not be read.
#[derive(Debug)]
pub enum Error {
    /// The client's fault: the bytes do not follow the protocol.
    Format,
    /// The client's fault: a length above its limit.
    Size,
    /// The client is gone.
    Disconnect,
    /// The client was silent for too long.
    Timeout,
    /// This machine's fault: there is no memory for the client's data.
    Memory,
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Format => "netstring format error",
            Error::Size => "netstring length exceeds storage limit",
            Error::Disconnect => "lost connection",
            Error::Timeout => "read/write timeout",
            Error::Memory => "insufficient memory",
        })
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            Error::Timeout
        } else {
            Error::Disconnect
        }
    }
}

/// A part that was read, for a trace.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    Length(u64),
    /// Data, or the part of it that had arrived.
    Data(&'a [u8]),
}

/// Called with each part that is read.
pub type Trace = fn(Seen<'_>);

/// A buffered source that counts the bytes left of an enclosing netstring.
///
/// Reading beyond them is a format error, which is returned before the byte is waited for.
pub struct Reader<R> {
    source: R,
    trace: Trace,
    buffer: Vec<u8>,
    /// `buffer[start..end]` has arrived and has not been used.
    start: usize,
    end: usize,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// A reader outside of any netstring.
    pub fn new(source: R, trace: Trace) -> Self {
        Reader {
            source,
            trace,
            buffer: vec![0; BUFFER_SIZE],
            start: 0,
            end: 0,
            left: u64::MAX,
        }
    }

    /// Limits the following reads to `length` bytes.
    pub fn enter(&mut self, length: u64) {
        self.left = length;
    }

    /// Whether the enclosing netstring is used up.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Reads digits and the colon. A length above `limit`, if there is a limit, is [`Error::Size`].
    pub fn length(&mut self, limit: Option<u64>) -> Result<u64, Error> {
        let mut length: u64 = 0;
        let mut digits = 0;
        loop {
            let byte = self.byte()?;
            let digit = match byte {
                b':' => break,
                b'0'..=b'9' if digits < DIGIT_LIMIT => u64::from(byte - b'0'),
                _ => return Err(Error::Format),
            };
            digits += 1;
            length = length.saturating_mul(10).saturating_add(digit);
            if length > LENGTH_LIMIT {
                return Err(Error::Size);
            }
        }
        (self.trace)(Seen::Length(length));
        if limit.is_some_and(|limit| length > limit) {
            return Err(Error::Size);
        }
        Ok(length)
    }

    /// The bytes of the enclosing netstring after data of `length` and its comma, for which there must be room.
    pub fn room_behind(&self, length: u64) -> Result<u64, Error> {
        let behind = self.left.checked_sub(length);
        behind.and_then(|n| n.checked_sub(1)).ok_or(Error::Format)
    }

    /// Returns between 1 and `most` bytes, as many as have arrived, and waits if there are none.
    ///
    /// `most` must not be zero, and [`Reader::room_behind`] must have allowed it.
    pub fn some(&mut self, most: u64) -> Result<&[u8], Error> {
        if self.start == self.end {
            self.fill()?;
        }
        let most = usize::try_from(most.min(self.left)).unwrap_or(usize::MAX);
        let taken = most.min(self.end - self.start);
        let from = self.start;
        self.start += taken;
        self.left = self.left.saturating_sub(taken as u64);
        self.buffer.get(from..self.start).ok_or(Error::Format)
    }

    /// Returns `most` bytes, or [`BLOCK_SIZE`] if that is less, in memory of their own, when all have arrived.
    ///
    /// `most` must not be zero, and [`Reader::room_behind`] must have allowed it. Data that has not been buffered is
    /// read directly into that memory, without a second copy.
    ///
    /// Unlike Postfix, which reserves the announced length: memory grows by blocks as they fill
    /// (`tests/spec/differences.md`, 11).
    pub fn block(&mut self, most: u64) -> Result<Vec<u8>, Error> {
        let most = usize::try_from(most.min(self.left)).unwrap_or(usize::MAX);
        let mut block = memory::zeroed(most.min(BLOCK_SIZE)).ok_or(Error::Memory)?;
        let arrived = self.buffer.get(self.start..self.end).unwrap_or_default();
        let mut filled = arrived.len().min(block.len());
        if let (Some(to), Some(from)) = (block.get_mut(..filled), arrived.get(..filled)) {
            to.copy_from_slice(from);
        }
        self.start += filled;
        while let Some(rest @ [_, ..]) = block.get_mut(filled..) {
            filled += read_some(&mut self.source, rest)?;
        }
        self.left = self.left.saturating_sub(block.len() as u64);
        Ok(block)
    }

    /// The trace for data. Lengths are traced here.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Reads the comma after data inside the enclosing netstring.
    pub fn comma(&mut self) -> Result<(), Error> {
        match self.byte()? {
            b',' => Ok(()),
            _ => Err(Error::Format),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        if self.left == 0 {
            return Err(Error::Format);
        }
        if self.start == self.end {
            self.fill()?;
        }
        let byte = self.buffer.get(self.start).copied();
        self.start += 1;
        self.left -= 1;
        byte.ok_or(Error::Format)
    }

    fn fill(&mut self) -> Result<(), Error> {
        self.start = 0;
        self.end = read_some(&mut self.source, &mut self.buffer)?;
        Ok(())
    }
}

fn read_some<R: Read>(source: &mut R, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match source.read(buffer) {
            Ok(0) => return Err(Error::Disconnect),
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

pub fn encode(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 8);
    out.extend_from_slice(data.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(data);
    out.push(b',');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], limit: Option<u64>) -> Result<Vec<u8>, Error> {
        let mut reader = Reader::new(bytes, |_| ());
        let length = reader.length(limit)?;
        let mut data = Vec::new();
        while (data.len() as u64) < length {
            let more = length - data.len() as u64;
            data.extend_from_slice(reader.some(more)?);
        }
        reader.comma()?;
        Ok(data)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(data: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&data), None).unwrap(), data);
        }

        #[test]
        fn any_bytes_are_data_or_an_error(bytes: Vec<u8>) {
            if let Ok(data) = decode(&bytes, Some(1000)) {
                prop_assert!(data.len() <= 1000);
            }
        }
    }

    /// A source that is never empty, and counts its reads.
    struct Counted<'a>(&'a [u8], &'a mut usize);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            *self.1 += 1;
            self.0.read(buffer)
        }
    }

    #[test]
    fn a_small_request_is_one_read_and_a_large_one_few() {
        for (size, expected) in [
            (100, 1),
            (BUFFER_SIZE - 6, 1),
            (BUFFER_SIZE - 5, 2),
            (BLOCK_SIZE, 3),
            (BLOCK_SIZE + 1, 4),
            (16 * BLOCK_SIZE, 18),
        ] {
            let data: Vec<u8> = (0..=250).cycle().take(size).collect();
            let bytes = encode(&data);
            let mut reads = 0;
            let mut reader = Reader::new(Counted(&bytes, &mut reads), |_| ());
            let mut left = reader.length(None).unwrap();
            let mut found = Vec::new();
            while left > 0 {
                let block = reader.block(left).unwrap();
                left -= block.len() as u64;
                assert!(block.len() == BLOCK_SIZE || left == 0);
                found.extend(block);
            }
            reader.comma().unwrap();
            assert_eq!((found, reads), (data, expected), "{size}");
        }
    }

    #[test]
    fn a_length_may_be_empty_or_start_with_zeros() {
        assert_eq!(decode(b":,", None).unwrap(), b"");
        for zeros in [1, 9, DIGIT_LIMIT - 1] {
            let zeros = "0".repeat(zeros);
            let bytes = format!("{zeros}2:ab,");
            assert_eq!(decode(bytes.as_bytes(), None).unwrap(), b"ab", "{bytes}");
        }
    }

    #[test]
    fn a_length_has_no_more_digits_than_the_limit() {
        for (digits, bytes) in [
            ("0".repeat(DIGIT_LIMIT), ":,"),
            ("1".to_owned(), ":x,"),
            ("0".repeat(DIGIT_LIMIT - 1) + "1", ":x,"),
        ] {
            assert!(decode((digits + bytes).as_bytes(), None).is_ok());
        }
        // The byte after one digit too many is not waited for.
        for digits in ["0".repeat(DIGIT_LIMIT + 1), "0".repeat(DIGIT_LIMIT) + "1"] {
            for bytes in ["", ":x,"] {
                let bytes = digits.clone() + bytes;
                assert!(matches!(decode(bytes.as_bytes(), None), Err(Error::Format)));
            }
        }
    }

    #[test]
    fn a_limit_holds_at_and_past_it() {
        assert_eq!(decode(b"3:abc,", Some(3)).unwrap(), b"abc");
        assert!(matches!(decode(b"4:", Some(3)), Err(Error::Size)));
        assert!(matches!(
            decode(b"9223372036854775807:", None),
            Err(Error::Disconnect)
        ));
        assert!(matches!(
            decode(b"9223372036854775808", None),
            Err(Error::Size)
        ));
    }

    #[test]
    fn nothing_but_digits_makes_a_length() {
        for bytes in ["x", " 1:a,", "+1:a,", "-1:a,", "1 :a,", "\u{e9}"] {
            assert!(
                matches!(decode(bytes.as_bytes(), None), Err(Error::Format)),
                "{bytes}"
            );
        }
    }

    #[test]
    fn data_must_end_with_a_comma() {
        assert!(matches!(decode(b"1:ab", None), Err(Error::Format)));
        assert!(matches!(decode(b"1:a", None), Err(Error::Disconnect)));
    }
}
