//! Reads a QMQP request: one netstring with the message, the sender and the recipients as netstrings.
//!
//! The types enforce the order: content, sender, recipients, end. Follows `tests/spec/qmqp.md`, sections 1 to 4, and
//! <https://cr.yp.to/proto/qmqp.html>. Replies are left to `session::answer`.

use std::fmt::{self, Display};
use std::io::Read;

use crate::wire::netstring::{Error, Reader, Seen, Trace};
use crate::wire::record::DATA_LIMIT;

/// The longest parts of a request, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// message_size_limit; `None` if it is zero or less.
    pub message: Option<u64>,
    /// The same limit, for the netstrings of all addresses together.
    pub envelope: Option<u64>,
    /// line_length_limit.
    pub address: u64,
}

/// The part of the request that is read. Completes "lost connection while ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Header,
    Content,
    Sender,
    Recipient,
    Reply,
}

impl Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "initializing client connection",
            Phase::Header => "receiving QMQP packet header",
            Phase::Content => "receiving message content",
            Phase::Sender => "receiving sender address",
            Phase::Recipient => "receiving recipient address",
            Phase::Reply => "sending completion status",
        })
    }
}

/// Why a request ends early: the client's error or silence, or a lack of memory.
#[derive(Debug)]
pub enum Fault {
    /// No netstring, a netstring that is too long, or no bytes.
    Netstring(Error, Phase),
    /// The addresses are longer than the envelope's limit.
    ///
    /// Unlike Postfix, which has no such limit: recipients could come for as long as the process lives. A request that
    /// announces more is refused before the message is received (`tests/spec/differences.md`, 42).
    Envelope,
    /// CR, LF or NUL in an address.
    ///
    /// Unlike Postfix, whose cleanup cuts an address at a NUL, which makes it another address; a line end breaks the
    /// header line with the recipient (`tests/spec/differences.md`, 2).
    Address(Phase),
}

/// A request whose outer length has been read.
///
/// Unlike Postfix, the length of the outer netstring is enforced, as in qmail-qmqpd: the parts must fill it exactly
/// (`tests/spec/differences.md`, 1). A request whose parts and whole disagree was cut or joined on its way.
pub struct Request<R> {
    reader: Reader<R>,
    limits: Limits,
}

/// The message, read in pieces.
pub struct Content<R> {
    reader: Reader<R>,
    limits: Limits,
    length: u64,
    left: u64,
}

/// The recipients, read one by one.
pub struct Recipients<R> {
    reader: Reader<R>,
    limits: Limits,
}

impl<R: Read> Request<R> {
    pub fn begin(source: R, limits: Limits, trace: Trace) -> Result<Self, Fault> {
        let mut reader = Reader::new(source, trace);
        let whole = reader.length(None).map_err(during(Phase::Header))?;
        reader.enter(whole);
        let limits = Limits {
            address: limits.address.min(DATA_LIMIT as u64),
            ..limits
        };
        Ok(Request { reader, limits })
    }

    /// Reads the length of the message. The rest of the outer netstring is the envelope's.
    pub fn content(self) -> Result<Content<R>, Fault> {
        let Request { mut reader, limits } = self;
        let left = announced(&mut reader, limits.message).map_err(during(Phase::Content))?;
        let envelope = reader.room_behind(left).map_err(during(Phase::Content))?;
        if limits.envelope.is_some_and(|limit| envelope > limit) {
            return Err(Fault::Envelope);
        }
        Ok(Content {
            reader,
            limits,
            length: left,
            left,
        })
    }
}

impl<R: Read> Content<R> {
    /// The next piece of the message; `None` after the last one.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = self
            .reader
            .block(self.left)
            .map_err(during(Phase::Content))?;
        if self.left == self.length {
            self.reader.trace()(Seen::Data(&piece));
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        Ok(Some(piece))
    }

    /// Reads the end of the message, and the sender.
    pub fn sender(mut self) -> Result<(Vec<u8>, Recipients<R>), Fault> {
        self.reader.comma().map_err(during(Phase::Content))?;
        let mut sender = Vec::new();
        address(&mut self.reader, self.limits, Phase::Sender, &mut sender)?;
        let rest = Recipients {
            reader: self.reader,
            limits: self.limits,
        };
        Ok((sender, rest))
    }
}

impl<R: Read> Recipients<R> {
    /// Reads the next recipient into `recipient`. False if there is none: the whole request has been read.
    pub fn next(&mut self, recipient: &mut Vec<u8>) -> Result<bool, Fault> {
        if !self.reader.is_empty() {
            address(&mut self.reader, self.limits, Phase::Recipient, recipient)?;
            return Ok(true);
        }
        self.reader.enter(1);
        self.reader.comma().map_err(during(Phase::Recipient))?;
        Ok(false)
    }
}

fn during(phase: Phase) -> impl Fn(Error) -> Fault {
    move |error| Fault::Netstring(error, phase)
}

fn announced<R: Read>(reader: &mut Reader<R>, limit: Option<u64>) -> Result<u64, Error> {
    let length = reader.length(limit)?;
    reader.room_behind(length)?;
    Ok(length)
}

fn address<R: Read>(
    reader: &mut Reader<R>,
    limits: Limits,
    phase: Phase,
    address: &mut Vec<u8>,
) -> Result<(), Fault> {
    address.clear();
    let mut left = announced(reader, Some(limits.address)).map_err(during(phase))?;
    while left > 0 {
        let piece = reader.some(left).map_err(during(phase))?;
        left = left.saturating_sub(piece.len() as u64);
        address.extend_from_slice(piece);
    }
    reader.trace()(Seen::Data(address));
    reader.comma().map_err(during(phase))?;
    if address.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(Fault::Address(phase));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netstring::encode;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::io;

    const LIMITS: Limits = Limits {
        message: Some(100),
        envelope: Some(500),
        address: 20,
    };

    #[derive(Debug, PartialEq)]
    struct Parts {
        content: Vec<u8>,
        sender: Vec<u8>,
        recipients: Vec<Vec<u8>>,
    }

    /// A source of at most `step` bytes a read, like a slow network.
    struct Steps<'a>(&'a [u8], usize);

    impl Read for Steps<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buffer.len());
            self.0.read(&mut buffer[..n])
        }
    }

    fn parse(source: impl Read) -> Result<Parts, Fault> {
        let mut content = Request::begin(source, LIMITS, |_| ())?.content()?;
        let mut bytes = Vec::new();
        while let Some(piece) = content.next()? {
            bytes.extend(piece);
        }
        let (sender, mut rest) = content.sender()?;
        let mut recipients = Vec::new();
        let mut recipient = Vec::new();
        while rest.next(&mut recipient)? {
            recipients.push(recipient.clone());
        }
        Ok(Parts {
            content: bytes,
            sender,
            recipients,
        })
    }

    fn request(content: &[u8], sender: &[u8], recipients: &[Vec<u8>]) -> Vec<u8> {
        let mut inner = encode(content);
        inner.extend(encode(sender));
        for recipient in recipients {
            inner.extend(encode(recipient));
        }
        encode(&inner)
    }

    #[test]
    fn the_worked_request_of_the_specification_has_its_parts() {
        let bytes = b"48:14:Subject: t\n\nb\n,11:s@x.example,11:r@y.example,,";
        assert_eq!(bytes.len(), 52);
        let parts = parse(&bytes[..]).unwrap();
        assert_eq!(parts.content, b"Subject: t\n\nb\n");
        assert_eq!(parts.sender, b"s@x.example");
        assert_eq!(parts.recipients, [b"r@y.example"]);
    }

    const FAULTS: &[(&str, &str)] = &[
        ("", "lost connection while receiving QMQP packet header"),
        (
            "x",
            "netstring format error while receiving QMQP packet header",
        ),
        (
            "9223372036854775808:",
            "netstring length exceeds storage limit while receiving QMQP packet header",
        ),
        ("8:", "lost connection while receiving message content"),
        (
            "300:101:",
            "netstring length exceeds storage limit while receiving message content",
        ),
        (
            "300:100:",
            "lost connection while receiving message content",
        ),
        (
            ":",
            "netstring format error while receiving message content",
        ),
        (
            "9:2:abX",
            "netstring format error while receiving message content",
        ),
        ("9:2:ab,", "lost connection while receiving sender address"),
        (
            "99:2:ab,21:",
            "netstring length exceeds storage limit while receiving sender address",
        ),
        (
            "99:2:ab,20:",
            "lost connection while receiving sender address",
        ),
        (
            "99:2:ab,1:a;",
            "netstring format error while receiving sender address",
        ),
        (
            "99:2:ab,1:a,",
            "lost connection while receiving recipient address",
        ),
        (
            "99:2:ab,1:a,21:",
            "netstring length exceeds storage limit while receiving recipient address",
        ),
        (
            "9:2:ab,1:a,x",
            "netstring format error while receiving recipient address",
        ),
        (
            "9:2:ab,1:a,",
            "lost connection while receiving recipient address",
        ),
    ];

    #[test]
    fn every_fault_names_its_phase() {
        for (bytes, text) in FAULTS {
            let Err(Fault::Netstring(error, phase)) = parse(bytes.as_bytes()) else {
                panic!("{bytes}");
            };
            assert_eq!(format!("{error} while {phase}"), *text, "{bytes}");
        }
    }

    #[test]
    fn an_envelope_may_be_as_long_as_the_limit() {
        let limit = usize::try_from(LIMITS.envelope.unwrap()).unwrap();
        // A sender of one byte, empty recipients, and one recipient that fills the rest.
        let envelope = |length: usize| {
            let empty = (length - 10) / 3;
            let mut envelope = b"1:s,".to_vec();
            envelope.extend(b"0:,".repeat(empty));
            envelope.extend(encode(&b"r".repeat(length - 4 - 3 * empty - 3)));
            assert_eq!(envelope.len(), length);
            envelope
        };
        for content in [&b""[..], b"x", &[b'x'; 100]] {
            let request = |length| encode(&[encode(content), envelope(length)].concat());
            let parts = parse(request(limit).as_slice()).unwrap();
            assert_eq!(parts.recipients.len(), (limit - 10) / 3 + 1);
            let past = request(limit + 1);
            assert!(matches!(parse(past.as_slice()), Err(Fault::Envelope)));
            // The bytes after the message's length are not waited for.
            let colons = past.iter().enumerate().filter(|(_, b)| **b == b':');
            let announced = colons.map(|(at, _)| at + 1).nth(1).unwrap();
            assert!(matches!(parse(&past[..announced]), Err(Fault::Envelope)));
        }
    }

    #[test]
    fn the_outer_length_must_be_filled_exactly() {
        let exact = b"9:2:ab,1:a,,";
        assert!(parse(&exact[..]).is_ok());
        for (outer, phase) in [
            (0, Phase::Content),
            (1, Phase::Content),
            (4, Phase::Content),
            (5, Phase::Sender),
            (8, Phase::Sender),
            (10, Phase::Recipient),
            (59, Phase::Recipient),
        ] {
            let bytes = format!("{outer}:2:ab,1:a,,");
            let Err(Fault::Netstring(Error::Format, at)) = parse(bytes.as_bytes()) else {
                panic!("{bytes}");
            };
            assert_eq!(at, phase, "{bytes}");
        }
    }

    #[test]
    fn line_ends_and_nul_are_refused_in_addresses_and_kept_in_content() {
        for byte in *b"\r\n\0" {
            let bad = vec![b'a', byte];
            let good = vec![b"r".to_vec()];
            assert!(matches!(
                parse(request(b"m", &bad, &good).as_slice()),
                Err(Fault::Address(Phase::Sender))
            ));
            assert!(matches!(
                parse(request(b"m", b"s", std::slice::from_ref(&bad)).as_slice()),
                Err(Fault::Address(Phase::Recipient))
            ));
            assert_eq!(
                parse(request(&bad, b"s", &good).as_slice())
                    .unwrap()
                    .content,
                bad
            );
        }
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(
            content in vec(any::<u8>(), 0..=100),
            sender in vec(b' '.., 0..=20),
            recipients in vec(vec(b' '.., 0..=20), 0..5),
            step in 1usize..40,
        ) {
            let bytes = request(&content, &sender, &recipients);
            let parts = parse(Steps(&bytes, step)).unwrap();
            prop_assert_eq!(parts, Parts { content, sender, recipients });
        }
    }
}
