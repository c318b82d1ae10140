//! Reads and writes records: a type byte, a length in base 128 (low seven bits first), data.
//!
//! cleanup(8) takes messages in this form, and queue files have it. Follows `tests/spec/cleanup.md`, section 2.3. The
//! order of records is left to `queue`.

use std::io::{self, Write};

/// The longest data of a record, in bytes: newer readers take four bytes of length.
pub const DATA_LIMIT: usize = (1 << 28) - 1;

/// The record types that this program writes, with Postfix's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// REC_TYPE_SIZE: the first record of a queue file, with its sizes.
    Size = b'C',
    /// REC_TYPE_TIME: arrival, seconds and microseconds.
    Time = b'T',
    /// REC_TYPE_FILT: content_filter; in content the same byte is [`Type::Cont`].
    Filt = b'L',
    /// REC_TYPE_FROM: envelope sender.
    From = b'S',
    /// REC_TYPE_VERP: the two delimiters.
    Verp = b'V',
    /// REC_TYPE_ATTR: name=value.
    Attr = b'A',
    /// REC_TYPE_WARN: the time when the sender is told that the message is late.
    Warn = b'W',
    /// REC_TYPE_ORCP: the recipient as it was received.
    Orcp = b'O',
    /// REC_TYPE_RCPT: envelope recipient.
    Rcpt = b'R',
    /// REC_TYPE_MESG: the content begins.
    Mesg = b'M',
    /// REC_TYPE_NORM: a line of content.
    Norm = b'N',
    /// REC_TYPE_XTRA: the content ends.
    Xtra = b'X',
    /// REC_TYPE_END: nothing follows.
    End = b'E',
}

impl Type {
    /// REC_TYPE_CONT: a piece of a line of content that continues in the next record.
    #[allow(
        non_upper_case_globals,
        reason = "stands beside the variants that it shares its byte with"
    )]
    pub const Cont: Type = Type::Filt;
}

/// The longest head of a record: its type and its length.
const HEAD_LIMIT: usize = 5;

/// Appends a record whose data consists of these pieces. Data above [`DATA_LIMIT`] cannot be written; callers keep
/// below it.
pub fn put(out: &mut Vec<u8>, kind: Type, pieces: &[&[u8]]) {
    put_sized(out, kind, total(pieces), pieces);
}

fn total(pieces: &[&[u8]]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

fn put_sized(out: &mut Vec<u8>, kind: Type, length: usize, pieces: &[&[u8]]) {
    debug_assert!(length <= DATA_LIMIT);
    match u8::try_from(length) {
        Ok(short @ 0..0x80) => out.extend_from_slice(&[kind as u8, short]),
        Ok(_) | Err(_) => {
            out.push(kind as u8);
            put_length(out, length);
        }
    }
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = length.to_le_bytes()[0] & 0x7f;
        length >>= 7;
        if length == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes the first record from `bytes`: its type byte, its data, and the rest. `None` if it is cut off, or longer than
/// [`DATA_LIMIT`].
pub fn get(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, mut rest) = bytes.split_first()?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (data, rest) = rest.split_at_checked(length)?;
            return Some((kind, data, rest));
        }
    }
    None
}

/// The least bytes of records that are written at a time.
pub const WRITE_SIZE: usize = 64 * 1024;

/// Collects records, and writes them in few calls.
///
/// The first error is kept, and later records are dropped. [`finish`] returns the error, when the writer of a message
/// can handle it.
///
/// [`finish`]: Writer::finish
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    buffer: Vec<u8>,
    /// The bytes that have left the buffer, written or not.
    passed: u64,
    failure: Option<io::Error>,
}

impl<W: Write> Writer<W> {
    /// A writer that begins with `preamble`, which is no record.
    pub fn new(sink: W, preamble: Vec<u8>) -> Self {
        Writer {
            sink,
            buffer: preamble,
            passed: 0,
            failure: None,
        }
    }

    /// Adds a record, see [`put`]. If there is no memory for it, the buffer is written first.
    pub fn put(&mut self, kind: Type, pieces: &[&[u8]]) {
        let length = total(pieces);
        let room = length.saturating_add(HEAD_LIMIT);
        let spare = self.buffer.capacity() - self.buffer.len();
        // A buffer that has to grow grows once, to the size of a write.
        if spare < room && self.buffer.try_reserve_exact(room.max(WRITE_SIZE)).is_err() {
            self.write();
        }
        put_sized(&mut self.buffer, kind, length, pieces);
        if self.buffer.len() >= WRITE_SIZE {
            self.write();
        }
    }

    /// Writes the rest, and returns the first error.
    pub fn finish(&mut self) -> io::Result<()> {
        self.write();
        self.failure.take().map_or(Ok(()), Err)
    }

    /// The offset of the next record.
    pub fn position(&self) -> u64 {
        self.passed.saturating_add(count(&self.buffer))
    }

    /// The sink, to read.
    pub fn sink_ref(&self) -> &W {
        &self.sink
    }

    /// The sink, after the last record.
    pub fn into_sink(self) -> W {
        self.sink
    }

    /// The sink, to change.
    pub fn sink(&mut self) -> &mut W {
        &mut self.sink
    }

    fn write(&mut self) {
        if self.failure.is_none() {
            self.failure = self.sink.write_all(&self.buffer).err();
        }
        self.passed = self.position();
        self.buffer.clear();
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn length_bytes(length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        put_length(&mut out, length);
        out
    }

    #[test]
    fn lengths_are_encoded_as_the_specification_lists_them() {
        for (length, bytes) in [
            (0, vec![0]),
            (1, vec![1]),
            (127, vec![0x7f]),
            (128, vec![0x80, 1]),
            (129, vec![0x81, 1]),
            (2048, vec![0x80, 0x10]),
            (16383, vec![0xff, 0x7f]),
            (16384, vec![0x80, 0x80, 1]),
            (2_097_152, vec![0x80, 0x80, 0x80, 1]),
            (DATA_LIMIT, vec![0xff, 0xff, 0xff, 0x7f]),
        ] {
            assert_eq!(length_bytes(length), bytes, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_got(first: Vec<u8>, second in proptest::collection::vec(any::<u8>(), 0..40_000)) {
            let mut out = Vec::new();
            put(&mut out, Type::Norm, &[&first, &second]);
            put(&mut out, Type::End, &[]);
            let (kind, data, rest) = get(&out).unwrap();
            prop_assert_eq!(kind, b'N');
            prop_assert_eq!(data, [first, second].concat());
            prop_assert_eq!(rest, b"E\0");
        }
    }
}
