//! The reply: a status byte and a text, as a netstring.
//!
//! Follows `tests/spec/qmqp.md`, section 8. Which reply is sent is left to `session::answer`.

use crate::wire::netstring;

/// The longest reply in bytes, with its netstring. qmail-qmqpc and nullmailer have buffers of 1000 bytes.
pub const REPLY_LIMIT: usize = 999;

/// The longest text: the reply without three digits, colon, status byte and comma.
const TEXT_LIMIT: usize = REPLY_LIMIT - 6;

/// The status byte, and what the client does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    /// Accepted: the client may delete the message.
    Accepted = b'K',
    /// Not now: the client keeps the message and tries again.
    TryLater = b'Z',
    /// Never: the client returns the message to its sender.
    Refused = b'D',
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    status: Status,
    text: Vec<u8>,
}

impl Reply {
    /// `K`
    pub fn accepted(text: &str) -> Reply {
        Reply::new(Status::Accepted, text.as_bytes())
    }

    /// `Z`
    pub fn try_later(text: &str) -> Reply {
        Reply::new(Status::TryLater, text.as_bytes())
    }

    /// `D`
    pub fn refused(text: &str) -> Reply {
        Reply::new(Status::Refused, text.as_bytes())
    }

    /// `Z`, with a text of another program.
    pub fn try_later_with(text: &str, reason: &[u8]) -> Reply {
        Reply::new(Status::TryLater, &[text.as_bytes(), reason].concat())
    }

    /// `D`, with a text of another program or of the client.
    pub fn refused_with(text: &str, reason: &[u8]) -> Reply {
        Reply::new(Status::Refused, &[text.as_bytes(), reason].concat())
    }

    fn new(status: Status, text: &[u8]) -> Reply {
        Reply {
            status,
            text: text.to_vec(),
        }
    }

    /// The reply under soft_bounce: a `D` becomes a `Z`.
    pub fn soft(&self, soft_bounce: bool) -> Reply {
        let status = if soft_bounce && self.status == Status::Refused {
            Status::TryLater
        } else {
            self.status
        };
        Reply {
            status,
            text: self.text.clone(),
        }
    }

    pub fn is_accepted(&self) -> bool {
        self.status == Status::Accepted
    }

    pub fn letter(&self) -> char {
        char::from(self.status as u8)
    }

    /// The text as given, for the log.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The bytes for the client.
    ///
    /// Unlike Postfix, whose replies pass on all bytes of cleanup's reason: the text has no control characters, and is
    /// cut so that the reply stays within [`REPLY_LIMIT`] (`tests/spec/differences.md`, 6).
    pub fn encode(&self) -> Vec<u8> {
        netstring::encode(&self.payload())
    }

    /// The content of the netstring of [`Reply::encode`].
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = vec![self.status as u8];
        let text = self.text.iter().take(TEXT_LIMIT);
        payload.extend(text.map(|&b| if b.is_ascii_control() { b'?' } else { b }));
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_a_netstring() {
        let reply = Reply::accepted("Ok: queued as C9D7F9987A5");
        assert_eq!(reply.encode(), b"26:KOk: queued as C9D7F9987A5,");
        assert_eq!(Reply::refused("").encode(), b"1:D,");
    }

    #[test]
    fn a_text_is_cut_past_the_limit_and_not_at_it() {
        let at = Reply::try_later(&"x".repeat(TEXT_LIMIT)).encode();
        let past = Reply::try_later(&"x".repeat(TEXT_LIMIT + 1)).encode();
        assert_eq!(at.len(), REPLY_LIMIT);
        assert_eq!(at, past);
    }

    #[test]
    fn control_characters_do_not_reach_the_client() {
        let reply = Reply::refused_with("Error: ", b"5.7.1\r\n\t\x1b\x7f caf\xc3\xa9");
        assert_eq!(
            reply.encode(),
            b"24:DError: 5.7.1????? caf\xc3\xa9,".as_slice()
        );
    }

    #[test]
    fn soft_bounce_touches_nothing_but_refusals() {
        assert_eq!(Reply::refused("x").soft(true).encode(), b"2:Zx,");
        assert_eq!(Reply::refused("x").soft(false).encode(), b"2:Dx,");
        assert_eq!(Reply::try_later("x").soft(true).encode(), b"2:Zx,");
        assert_eq!(Reply::accepted("x").soft(true).encode(), b"2:Kx,");
    }
}
