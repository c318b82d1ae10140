//! Queue files, in memory.
//!
//! Promised: a file that counts as mail holds the whole message, parses back to it, and `--cat` shows it to the end; a
//! file of anything else does not count as mail.

mod expected;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::command::cat::cat;
use crate::queue::{Method, Origin, Verdict, in_memory};
use crate::sys::time::Moment;

use super::input::Input;
use super::message::Message;
use super::obvious::content::{self, Record};
use super::obvious::records;
use super::surroundings::{client, config, with_log};

use expected::Expected;

/// The mode of a file that counts as mail.
const COMPLETE: u32 = 0o700;

/// line_length_limit.
const LINE_LIMIT: usize = 512;

/// What main.cf says of queue files, as far as it varies here.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    pub delay_warning_time: bool,
    pub enable_original_recipient: bool,
    pub small_duplicate_filter: bool,
    small_header_size: bool,
    few_hops: bool,
    long_ids: bool,
    /// Enabled, and asked for wherever an address or a header takes it.
    pub smtputf8: bool,
}

impl Choices {
    fn main_cf(self) -> String {
        let yes = |choice| if choice { "yes" } else { "no" };
        let number = |choice, small, large| if choice { small } else { large };
        format!(
            "qmqpd_queue_method=file\nline_length_limit={LINE_LIMIT}\ndelay_warning_time={}\n\
             enable_original_recipient={}\nduplicate_filter_limit={}\nheader_size_limit={}\n\
             hopcount_limit={}\nenable_long_queue_ids={}\n\
             smtputf8_enable={}\nsmtputf8_autodetect_classes=all\n",
            number(self.delay_warning_time, 3600, 0),
            yes(self.enable_original_recipient),
            number(self.small_duplicate_filter, 2, 1000),
            number(self.small_header_size, 60, 102_400),
            number(self.few_hops, 2, 50),
            yes(self.long_ids),
            yes(self.smtputf8),
        )
    }
}

/// A byte of choices, one for the largest file, then the message.
pub fn queue_file(data: &[u8]) {
    let mut input = Input(data);
    let bits = input.byte();
    let choices = Choices {
        delay_warning_time: bits & 1 != 0,
        enable_original_recipient: bits & 2 != 0,
        small_duplicate_filter: bits & 4 != 0,
        small_header_size: bits & 8 != 0,
        few_hops: bits & 16 != 0,
        long_ids: bits & 32 != 0,
        smtputf8: bits & 64 != 0,
    };
    let limit = match input.byte() {
        0 => None,
        n => Some(u64::from(n) * 32),
    };
    let message = Message::read(&mut input);
    with_log(|| check(choices, limit, &message));
}

fn check(choices: Choices, limit: Option<u64>, message: &Message) {
    let config = config(choices.main_cf().as_bytes()).unwrap();
    let method = Method::from_config(&config).unwrap();
    let origin = Origin {
        peer: &client(),
        namaddr: "client.example[192.0.2.1]",
        arrival: Moment {
            secs: 1_700_000_000,
            usecs: 7,
        },
    };
    let file = File::from(memfd_create(c"queue-file", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_permissions(PermissionsExt::from_mode(0o600))
        .unwrap();
    let directory = OwnedFd::from(File::open("/dev/shm").unwrap());
    let written = (file.try_clone().unwrap(), directory);
    let queue = in_memory::file(&method, &origin, written, limit).unwrap();
    let verdict = message.commit(queue).verdict;

    let metadata = file.metadata().unwrap();
    let is_mail = metadata.permissions().mode() & 0o777 == COMPLETE;
    assert_eq!(is_mail, verdict == Verdict::Queued);
    let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    match verdict {
        Verdict::Queued => check_file(&bytes, choices, message),
        Verdict::NoRecipients => assert!(message.recipients.is_empty()),
        Verdict::TooManyHops => assert!(
            message
                .content
                .to_ascii_lowercase()
                .windows(8)
                .any(|word| word == b"received")
        ),
        Verdict::TooLarge => assert!(limit.is_some()),
        other => panic!("{other:?}"),
    }
}

fn check_file(bytes: &[u8], choices: Choices, message: &Message) {
    let mut found = records::all(bytes);
    let expected = Expected::of(message, choices);
    let size = String::from_utf8(found[0].1.clone()).unwrap();
    let numbers: Vec<usize> = size
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let [length, begin, recipients, 0, again, _] = numbers[..] else {
        panic!("{size}");
    };
    assert_eq!((size.len(), recipients), (6 * 15 + 5, expected.recipients));
    assert_eq!(length, again);
    // Content lies where the first record says, to the byte.
    let rest = records::all(&bytes[begin..]);
    assert_eq!(&bytes[begin - 2..begin], b"M\0");
    let behind = records::all(&bytes[begin + length..]);
    assert_eq!(behind.first(), Some(&(b'X', Vec::new())));
    assert_eq!(behind.last(), Some(&(b'E', Vec::new())));

    let mut envelope = found
        .drain(..found.len() - rest.len())
        .skip(1)
        .collect::<Vec<_>>();
    envelope.retain(|(kind, data)| {
        *kind != b'A' || !data.starts_with(b"client_") && !data.starts_with(b"log_")
    });
    assert_eq!(envelope, expected.envelope);
    check_content(&rest[..rest.len() - behind.len()], message);

    let mut shown = Vec::new();
    assert!(cat(Path::new("F"), bytes, &mut shown, |_| {}).unwrap());
}

/// Headers that are one's own or the client's, none empty; then the body, as the client sent it.
fn check_content(found: &[Record], message: &Message) {
    let blank = |b: &u8| if *b == b'\r' { b' ' } else { *b };
    let mut sent = content::records(&message.content, LINE_LIMIT);
    for (_, data) in &mut sent {
        *data = data.iter().map(blank).collect();
    }
    let mut body = content::body(&sent).to_vec();
    if body.first().is_some_and(|(_, data)| !data.is_empty()) {
        body.insert(0, (b'N', Vec::new()));
    }
    if body.last().is_some_and(|(kind, _)| *kind == b'L') {
        body.push((b'N', Vec::new()));
    }
    let (headers, rest) = found.split_at(found.len() - body.len());
    assert_eq!(rest, body);
    assert!(headers[0].1.starts_with(b"Received: from client.example"));
    let has = |name: &[u8]| {
        let lines = headers.iter().map(|(_, data)| data.to_ascii_lowercase());
        lines.filter(|line| line.starts_with(name)).count()
    };
    assert!(has(b"message-id") + has(b"resent-message-id") >= 1);
    assert!(has(b"date") + has(b"resent-date") >= 1 && has(b"from") + has(b"resent-from") >= 1);
    for (kind, data) in headers {
        assert!(!data.is_empty() && data.len() <= LINE_LIMIT && matches!(kind, b'N' | b'L'));
        assert!(!data.contains(&0) && !data.contains(&b'\r'));
    }
    assert_eq!(has(b"bcc:"), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::{message, random};

    #[test]
    fn files_that_count_as_mail_hold_the_message() {
        random::run("queue_file", queue_file, |random| {
            let mut input = vec![
                random.byte(),
                random.byte() * u8::from(random.below(4) == 0),
            ];
            input.extend(message::sample(random));
            input
        });
    }
}
