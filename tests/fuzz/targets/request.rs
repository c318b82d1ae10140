//! The request reader against an obvious one, whatever the limits and however the bytes come in.

use std::io::Read;

use crate::wire::qmqp::{Fault, Limits, Request};

use super::input::Input;
use super::obvious::request::{self as obvious, Parts};
use super::steps::Steps;

/// Two bytes of limits, one that says how many bytes come at a time, and what the client sends.
pub fn request(data: &[u8]) {
    let mut input = Input(data);
    let limit = Some(u64::from(input.byte())).filter(|limit| (1..192).contains(limit));
    let limits = Limits {
        message: limit,
        envelope: limit,
        address: u64::from(input.byte()),
    };
    let step = usize::from(input.byte()).max(1);
    let bytes = input.0;
    let expected = obvious::parse(bytes, limits);
    let slow = Steps::new(bytes, step);
    assert_eq!(read(slow, limits).map_err(sentence), expected);
    assert_eq!(read(bytes, limits).map_err(sentence), expected);
}

fn read(source: impl Read, limits: Limits) -> Result<Parts, Fault> {
    let mut content = Request::begin(source, limits, |_| ())?.content()?;
    let mut bytes = Vec::new();
    while let Some(piece) = content.next()? {
        assert!(!piece.is_empty());
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

fn sentence(fault: Fault) -> String {
    match fault {
        Fault::Netstring(error, phase) => format!("{error} while {phase}"),
        Fault::Envelope => obvious::ENVELOPE.to_owned(),
        Fault::Address(phase) => format!("{} while {phase}", obvious::ADDRESS),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::fuzzing::random::{self, Random};
    use crate::wire::netstring::{BLOCK_SIZE, encode};

    /// A request of short parts, damaged as often as not.
    pub fn sample(random: &mut Random) -> Vec<u8> {
        let mut content = random.bytes(40);
        if random.below(40) == 0 {
            // Up to and beyond what is read at once.
            content = vec![b'x'; BLOCK_SIZE - 5000 + random.below(10_000)];
        }
        let mut inner = encode(&content);
        for _ in 0..random.below(5) {
            let address = random.text(9, &["a", "list-", "@", ".example", "\"", "-@[]"]);
            if random.below(6) == 0 {
                let zeros = [1, 18, 19, 20, 21][random.below(5)];
                inner.extend(b"0".repeat(zeros));
            }
            inner.extend(encode(&address));
        }
        if random.below(8) == 0 {
            // An envelope about as long as the limit can be, of addresses that hold nothing.
            inner.extend(b"0:,".repeat(random.below(80)));
        }
        let mut request = encode(&inner);
        if random.below(4) == 0 {
            // Longer or shorter by one than its parts, and perhaps cut off.
            let length = (inner.len() + random.below(3)).saturating_sub(1);
            request = [format!("{length}:").as_bytes(), &inner, b","].concat();
            request.truncate(request.len() - random.below(inner.len()));
        }
        random.damage(&mut request);
        request
    }

    #[test]
    fn requests_are_read_as_by_an_obvious_reader() {
        random::run("request", request, |random| {
            let limits = [random.byte(), random.byte() % 64, random.byte()];
            [&limits, sample(random).as_slice()].concat()
        });
    }
}
