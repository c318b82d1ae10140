//! The conversation with a cleanup that says what it likes, in memory.
//!
//! Promised: what it is told parses back to the message; and it has queued the message only if it says so, in full.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use crate::queue::{Method, Origin, Verdict, in_memory};
use crate::sys::time::Moment;

use super::input::Input;
use super::message::Message;
use super::obvious::content::{self, Record};
use super::obvious::{attributes, records};
use super::surroundings::{client, config, with_log};

const MAIN_CF: &[u8] = b"line_length_limit=512\ncontent_filter=scan:[::1]\n";

const GREETING: &[u8] = b"protocol\0cleanup_protocol\0queue_id\x004F1\0\0";
const QUEUED: &[u8] = b"status\x000\0reason\0\0\0";

/// How the other end behaves, then the message.
pub fn cleanup(data: &[u8]) {
    let mut input = Input(data);
    let other = Other {
        greeting: if input.bit() { input.data() } else { GREETING },
        status: if input.bit() { input.data() } else { QUEUED },
        step: usize::from(input.byte()).max(1),
        breaks_at: match input.byte() {
            0 => usize::MAX,
            n => usize::from(n) * 16,
        },
        read: 0,
        heard: Rc::default(),
    };
    let message = Message::read(&mut input);
    with_log(|| check(other, &message));
}

fn check(other: Other<'_>, message: &Message) {
    let method = Method::from_config(&config(MAIN_CF).unwrap()).unwrap();
    let origin = Origin {
        peer: &client(),
        namaddr: "client.example[192.0.2.1]",
        arrival: Moment {
            secs: 1_700_000_000,
            usecs: 7,
        },
    };
    let (status, greeting) = (other.status, other.greeting);
    let (heard, breaks_at) = (Rc::clone(&other.heard), other.breaks_at);
    let mut queue = in_memory::cleanup(&method, &origin, other).unwrap();
    let Ok(_) = queue.queue_id() else {
        assert!(!is_greeting(greeting));
        assert!(heard.borrow().is_empty());
        return;
    };
    assert!(is_greeting(greeting));
    let verdict = message.commit(queue).verdict;
    let heard = heard.borrow();
    let is_complete = heard.len() <= breaks_at;
    assert_eq!(
        verdict == Verdict::Queued,
        is_complete && says_queued(status)
    );
    if is_complete {
        check_records(&heard, message);
    }
}

fn is_greeting(bytes: &[u8]) -> bool {
    let mut list = attributes::list(bytes).unwrap_or_default();
    if list.first().is_some_and(|(name, _)| name == b"protocol") {
        let (_, protocol) = list.remove(0);
        if protocol != b"cleanup_protocol" {
            return false;
        }
    }
    list.first().is_some_and(|(name, id)| {
        let is_id = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        name == b"queue_id" && (1..=255).contains(&id.len()) && id.iter().all(is_id)
    })
}

fn says_queued(bytes: &[u8]) -> bool {
    match attributes::list(bytes).unwrap_or_default().as_slice() {
        [(status, number), (reason, _), ..] => {
            let digits = number.strip_prefix(b"+").unwrap_or(number);
            let is_zero = !digits.is_empty() && digits.iter().all(|&b| b == b'0');
            status == b"status" && reason == b"reason" && is_zero
        }
        _ => false,
    }
}

fn check_records(heard: &[u8], message: &Message) {
    let list = attributes::list(heard).unwrap();
    let [(name, _)] = list.as_slice() else {
        panic!("{list:?}");
    };
    assert_eq!(name, b"flags");
    let end = heard.windows(2).position(|two| two == [0, 0]).unwrap();
    let mut found = records::all(&heard[end + 2..]);
    // Of the ten attributes each says where the message is from.
    found.retain(|(kind, data)| {
        *kind != b'A' || !data.starts_with(b"client_") && !data.starts_with(b"log_")
    });
    let sender = &message.sender;
    let mut expected: Vec<Record> = vec![
        (b'T', b"1700000000 7".to_vec()),
        (b'L', b"scan:[::1]".to_vec()),
        (b'S', sender.address.clone()),
    ];
    expected.extend(sender.verp.map(|delimiters| (b'V', delimiters.to_vec())));
    expected.push((b'A', b"protocol_name=QMQP".to_vec()));
    expected.extend(
        message
            .recipients
            .iter()
            .map(|recipient| (b'R', recipient.clone())),
    );
    expected.push((b'M', Vec::new()));
    let header = found.split_off(expected.len());
    assert_eq!(found, expected);
    let (received, rest) = header.split_at(3);
    assert!(
        received[0]
            .1
            .starts_with(b"Received: from client.example (client.example [192.0.2.1])")
    );
    assert_eq!(
        received[2].1.starts_with(b"\tfor <"),
        message.recipients.len() == 1
    );
    assert!(received.iter().all(|(kind, _)| *kind == b'N'));
    let mut expected = content::records(&message.content, 512);
    expected.extend([(b'X', Vec::new()), (b'E', Vec::new())]);
    assert_eq!(rest, expected);
}

/// The other end of the stream.
struct Other<'a> {
    greeting: &'a [u8],
    /// Said once anything has been heard.
    status: &'a [u8],
    /// How many bytes of that come at a time.
    step: usize,
    /// The stream breaks when this much has been heard.
    breaks_at: usize,
    /// How much of what is being said has been read.
    read: usize,
    heard: Rc<RefCell<Vec<u8>>>,
}

impl Read for Other<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let said = if self.heard.borrow().is_empty() {
            self.greeting
        } else {
            self.status
        };
        let left = &said[self.read..];
        let n = left.len().min(self.step).min(buffer.len());
        buffer[..n].copy_from_slice(&left[..n]);
        self.read += n;
        Ok(n)
    }
}

impl Write for Other<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut heard = self.heard.borrow_mut();
        if heard.is_empty() {
            self.read = 0;
        }
        heard.extend_from_slice(bytes);
        if heard.len() > self.breaks_at {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::{message, random};

    #[test]
    fn cleanup_is_told_the_message_and_believed_no_more_than_it_says() {
        random::run("cleanup", cleanup, |random| {
            let mut input = Vec::new();
            for said in [GREETING, QUEUED] {
                if random.below(2) == 0 {
                    input.push(0);
                    continue;
                }
                let mut said = said.to_vec();
                random.damage(&mut said);
                input.push(1);
                input.extend(u16::try_from(said.len()).unwrap().to_le_bytes());
                input.extend(said);
            }
            input.extend([
                random.byte(),
                random.byte() * u8::from(random.below(4) == 0),
            ]);
            input.extend(message::sample(random));
            input
        });
    }
}
