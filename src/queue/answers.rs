//! Reads cleanup(8)'s answers: a greeting with the queue id, and the final status.
//!
//! Both are attribute lists in a fixed order. Any other answer is logged, and counts as "not known whether queued".
//! Follows `tests/spec/cleanup.md`, sections 2, 2.1 and 5. The other direction is left to `queue::cleanup`.

use std::io::{self, Read};

use crate::log::{self, Shown};
use crate::wire::attr;

use super::{Unavailable, Verdict};

/// The bits of the final status.
mod bit {
    pub const BAD: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const SIZE: u32 = 1 << 2;
    pub const CONT: u32 = 1 << 3;
    pub const HOPS: u32 = 1 << 4;
    pub const RCPT: u32 = 1 << 6;
    pub const DEFER: u32 = 1 << 8;
}

/// Reads the queue id. Before version 3.6 cleanup does not name its protocol.
pub fn greeting(stream: &mut impl Read, socket: &str) -> Result<String, Unavailable> {
    let list = attr::read(stream).map_err(|error| {
        log_unread(&error, socket);
        Unavailable
    })?;
    let mut pairs = list.iter().peekable();
    if let Some((_, protocol)) = pairs.next_if(|(name, _)| name == b"protocol") {
        log_attribute(socket, "protocol", protocol);
        if protocol != b"cleanup_protocol" {
            log::warning!(
                "unexpected protocol {} from {socket} (expected: cleanup_protocol)",
                Shown(protocol)
            );
            return Err(Unavailable);
        }
    }
    let queue_id = wanted(&mut pairs, "queue_id", socket).filter(|id| is_queue_id(id));
    log_end(&mut pairs, socket);
    match queue_id {
        Some(queue_id) => Ok(String::from_utf8_lossy(queue_id).into_owned()),
        None => {
            log::warning!("no queue id from {socket}");
            Err(Unavailable)
        }
    }
}

/// 1 to 255 letters, digits and `_`, which are safe in log lines and in our header.
fn is_queue_id(id: &[u8]) -> bool {
    (1..=255).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

type Pairs<'a> = std::iter::Peekable<std::slice::Iter<'a, (Vec<u8>, Vec<u8>)>>;

/// The value of the next attribute, if it has this name.
fn wanted<'a>(pairs: &mut Pairs<'a>, name: &str, socket: &str) -> Option<&'a [u8]> {
    let Some((found, value)) = pairs.next() else {
        log::warning!("missing attribute {name} in input from {socket}");
        return None;
    };
    if found != name.as_bytes() {
        log::warning!(
            "unexpected attribute {} from {socket} (expecting: {name})",
            Shown(found)
        );
        return None;
    }
    log_attribute(socket, name, value);
    Some(value)
}

/// Logs why there is no list. A cleanup that closes the connection without an answer has logged its reason.
fn log_unread(error: &attr::Error, socket: &str) {
    match error {
        attr::Error::Closed => {}
        attr::Error::Truncated(part) => {
            let part = match part {
                attr::Part::Name => "name",
                attr::Part::Value => "value",
            };
            log::warning!(
                "unexpected end-of-input from {socket} while reading input attribute {part}"
            );
        }
        attr::Error::TooLong => log::warning!(
            "attribute list longer than {} bytes from {socket}",
            attr::LIST_LIMIT
        ),
        attr::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            log::warning!("timeout on {socket}");
        }
        attr::Error::Io(error) => {
            log::warning!("read from {socket}: {}", log::error_text(error));
        }
    }
}

/// Logs an error of the stream, with the text of Postfix's own clients of cleanup.
pub fn log_close_error(error: &io::Error, socket: &str) {
    log::debug!(1, "{socket}: {}", log::error_text(error));
    log::warning!("mail_stream_cleanup: close error");
}

fn log_attribute(socket: &str, name: &str, value: &[u8]) {
    log::debug!(1, "{socket}: wanted attribute: {name}");
    log::debug!(1, "input attribute name: {name}");
    let shown = if value.is_empty() { b"(end)" } else { value };
    log::debug!(1, "input attribute value: {}", Shown(shown));
}

fn log_end(pairs: &mut Pairs<'_>, socket: &str) {
    log::debug!(1, "{socket}: wanted attribute: (list terminator)");
    match pairs.next() {
        Some((name, _)) => log::warning!(
            "unexpected attribute {} from {socket} (expecting: (list terminator))",
            Shown(name)
        ),
        None => log::debug!(1, "input attribute name: (end)"),
    }
}

/// Reads cleanup's final status. Without a complete one it is not known whether the message is queued, and the client
/// has to try again.
pub fn status(stream: &mut impl Read, socket: &str) -> Verdict {
    let list = match attr::read(stream) {
        Ok(list) => list,
        Err(attr::Error::Io(error)) => {
            log_close_error(&error, socket);
            return Verdict::WriteError;
        }
        Err(error) => {
            log_unread(&error, socket);
            return Verdict::WriteError;
        }
    };
    let mut pairs = list.iter().peekable();
    let Some(number) = wanted(&mut pairs, "status", socket) else {
        return Verdict::WriteError;
    };
    let Some(status) = std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        log::warning!(
            "malformed numerical data from {socket} while reading input attribute value: {}",
            Shown(number)
        );
        return Verdict::WriteError;
    };
    let Some(reason) = wanted(&mut pairs, "reason", socket) else {
        return Verdict::WriteError;
    };
    log_end(&mut pairs, socket);
    verdict(status, reason)
}

/// The verdict for the bits, in the order of their precedence.
fn verdict(status: u32, reason: &[u8]) -> Verdict {
    let has = |bit| status & bit != 0;
    match status {
        0 => Verdict::Queued,
        _ if has(bit::DEFER) => Verdict::Deferred(reason.to_vec()),
        _ if has(bit::BAD) => Verdict::Internal(status),
        _ if has(bit::SIZE) => Verdict::TooLarge,
        _ if has(bit::HOPS) => Verdict::TooManyHops,
        _ if has(bit::CONT) => Verdict::Rejected(reason.to_vec()),
        _ if has(bit::WRITE) => Verdict::WriteError,
        _ if has(bit::RCPT) => Verdict::NoRecipients,
        _ => Verdict::Internal(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_verdict_and_the_worst_bit_counts() {
        let rejected = || Verdict::Rejected(b"5.7.1 no".to_vec());
        let deferred = || Verdict::Deferred(b"5.7.1 no".to_vec());
        for (status, expected) in [
            (0, Verdict::Queued),
            (1, Verdict::Internal(1)),
            (2, Verdict::WriteError),
            (3, Verdict::Internal(3)),
            (4, Verdict::TooLarge),
            (6, Verdict::TooLarge),
            (8, rejected()),
            (16, Verdict::TooManyHops),
            (24, Verdict::TooManyHops),
            (32, Verdict::Internal(32)),
            (64, Verdict::NoRecipients),
            (66, Verdict::WriteError),
            (72, rejected()),
            (128, Verdict::Internal(128)),
            (256, deferred()),
            (264, deferred()),
            (512, Verdict::Internal(512)),
            (65536, Verdict::Internal(65536)),
            (u32::MAX, deferred()),
        ] {
            assert_eq!(verdict(status, b"5.7.1 no"), expected, "{status}");
        }
    }

    #[test]
    fn only_a_complete_answer_says_queued() {
        let read = |bytes: &[u8]| status(&mut &*bytes, "test socket");
        assert_eq!(read(b"status\x000\0reason\0\0\0"), Verdict::Queued);
        assert_eq!(
            read(b"status\x000\0reason\0\0extra\0x\0\0"),
            Verdict::Queued
        );
        for bytes in [
            &b""[..],
            b"status\x000\0reason\0\0",
            b"status\x000\0\0",
            b"reason\0\0status\x000\0\0",
            b"status\x000x\0reason\0\0\0",
            b"status\0-1\0reason\0\0\0",
            b"status\x004294967296\0reason\0\0\0",
            b"\0",
        ] {
            assert_eq!(read(bytes), Verdict::WriteError, "{bytes:?}");
        }
    }

    #[test]
    fn greetings_of_every_version_are_understood_and_no_others() {
        let read = |bytes: &[u8]| greeting(&mut &*bytes, "test socket").ok();
        let id = || Some("2A67E9987AC".to_owned());
        assert_eq!(
            read(b"protocol\0cleanup_protocol\0queue_id\x002A67E9987AC\0\0"),
            id()
        );
        assert_eq!(read(b"queue_id\x002A67E9987AC\0\0"), id());
        assert_eq!(read(b"queue_id\x002A67E9987AC\0extra\0x\0\0"), id());
        for bytes in [
            &b""[..],
            b"\0",
            b"queue_id\0\0\0",
            b"queue_id\x002A67E9987AC\0",
            b"queue_id\x00../../etc\0\0",
            b"queue_id\0A\nB\0\0",
            b"queue_file\x002A67E9987AC\0\0",
            b"protocol\0bounce_protocol\0queue_id\x002A67E9987AC\0\0",
        ] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }
}
